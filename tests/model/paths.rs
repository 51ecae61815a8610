//! Random paths: names that exist, and every way to say something else.

use super::random_tree::{Kind, Node, RandomTree, join, last, name, sibling};
use crate::support::Random;

/// Paths below the root of a tree.
#[derive(Debug)]
pub(crate) struct Paths {
    nodes: Vec<Node>,
    /// How many of them, the first ones, are asked of more often.
    ordinary: usize,
    /// Links that lead to a directory.
    links: Vec<usize>,
    files: Vec<usize>,
    directories: Vec<usize>,
}

impl Paths {
    pub(crate) fn of(tree: &RandomTree) -> Paths {
        let leads = |index: &usize| tree.nodes[*index].leads_to.is_some();
        Paths {
            nodes: tree.nodes.clone(),
            ordinary: tree.ordinary,
            links: tree.of_kind(Kind::Link).into_iter().filter(leads).collect(),
            files: tree.of_kind(Kind::File).into_iter().filter(|&it| it < tree.ordinary).collect(),
            directories: tree.of_kind(Kind::Directory),
        }
    }

    pub(crate) fn random(&self, random: &mut Random) -> Vec<u8> {
        let path = match random.below(100) {
            0..=54 => self.any(random),
            55..=64 => self.through_link(random),
            65..=74 => self.missing(random),
            75..=77 => join(self.one(&self.files, random), &name(random)),
            78 | 79 => join(&self.missing(random), &name(random)),
            80..=82 => [self.any(random), vec![b'/'; 1 + random.below(3) as usize]].concat(),
            83 => [self.any(random), b"/.".to_vec()].concat(),
            84 | 85 => [self.any(random), b"/..".to_vec()].concat(),
            86 => [self.any(random), b"/../".to_vec(), name(random)].concat(),
            87..=89 => self.roundabout(random),
            90 => join(self.one(&self.directories, random), &too_long(random)),
            91 => join(&join(self.one(&self.directories, random), &too_long(random)), b"name"),
            92 => [b"n/".repeat(2100), b"name".to_vec()].concat(),
            93 => Vec::new(),
            _ => self.one(&self.directories, random).to_vec(),
        };
        // Files are what most is asked of.
        if random.below(8) == 0 { self.one(&self.files, random).to_vec() } else { path }
    }

    fn any(&self, random: &mut Random) -> Vec<u8> {
        let all = if random.below(8) == 0 { self.nodes.len() } else { self.ordinary };
        self.nodes[random.below(all as u64) as usize].path.clone()
    }

    fn one(&self, list: &[usize], random: &mut Random) -> &[u8] {
        let index = list.get(random.below(list.len().max(1) as u64) as usize).copied();
        &self.nodes[index.unwrap_or(0)].path
    }

    /// A link to a directory, and a name below that.
    fn through_link(&self, random: &mut Random) -> Vec<u8> {
        if self.links.is_empty() {
            return self.any(random);
        }
        let index = self.links[random.below(self.links.len() as u64) as usize];
        let (link, directory) = (&self.nodes[index], &self.nodes[index].leads_to);
        let prefix = join(directory.as_deref().unwrap_or_default(), b"/");
        let prefix = if prefix == b"/" { &[][..] } else { &prefix[..prefix.len() - 1] };
        // The first of a few that is there; else a name that most likely is not.
        let below = (0..20).find_map(|_| {
            let path = self.any(random);
            let below = path.strip_prefix(prefix)?;
            let below = below.strip_prefix(b"/").or(prefix.is_empty().then_some(below))?;
            Some(below.to_vec())
        });
        join(&link.path, &below.unwrap_or_else(|| name(random)))
    }

    /// A name that is not there, often nearly one that is.
    fn missing(&self, random: &mut Random) -> Vec<u8> {
        let path = self.any(random);
        let mut name = match random.below(2) {
            0 => last(&path).to_vec(),
            _ => name(random),
        };
        match random.below(4) {
            0 => name.push(b'!'),
            1 => drop(name.pop()),
            2 => name.iter_mut().take(1).for_each(|byte| *byte = byte.wrapping_add(1).max(b'0')),
            _ => name.insert(0, b'_'),
        }
        sibling(&path, &name)
    }

    /// `a/./b//c`, `a/../a/b`.
    fn roundabout(&self, random: &mut Random) -> Vec<u8> {
        let path = self.any(random);
        let mut made = Vec::new();
        for component in path.split(|&byte| byte == b'/') {
            match random.below(5) {
                0 => made.extend_from_slice(b"./"),
                1 => made.extend_from_slice(b"/"),
                2 => made.extend_from_slice(&[component, b"/../"].concat()),
                _ => {}
            }
            made.extend_from_slice(component);
            made.push(b'/');
        }
        made.pop();
        if made.first() == Some(&b'/') {
            made.insert(0, b'.')
        }
        made
    }
}

fn too_long(random: &mut Random) -> Vec<u8> {
    vec![b'n'; 256 + random.below(2) as usize * random.below(1000) as usize]
}
