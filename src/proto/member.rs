//! One rank: its part in each tree, over one store.
//!
//! An object belongs to one tree ([`owner`]), so it is fetched by one [`Node`] alone. What has come
//! by any tree answers for all, since they share the store. Each input goes to the node whose tree
//! it is of: by its key, its link, or the number that the node gave it.
//!
//! It is driven as a [`Node`] is, by the same rules.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use hashbrown::HashMap;

use crate::file_policy::FilePolicy;
use crate::ids::{Epoch, LinkId, Rank, TreeIndex};
use crate::key::{Key, ViewPath};
use crate::node::{Gauges, Input, Node, NodeCounters, Output, Place, SourceUse};
use crate::ownership::{owner, tree_of_job, tree_of_pull};
use crate::scope::Scope;
use crate::store::Store;
use crate::tick::Tick;
use crate::wire::Message;

/// One rank.
#[derive(Debug)]
pub struct Member {
    /// By tree.
    nodes: Vec<Node>,
    links: HashMap<LinkId, TreeIndex>,
    /// The tree whose node took the last input: its outputs may name extents that any other node
    /// could evict, and come first.
    first: usize,
    /// Nodes that have nothing to do, in order from that one.
    polled: usize,
    /// To be fetched ahead by other trees than the one that thought of it; empty between inputs.
    elsewhere: VecDeque<Key>,
    epoch: Epoch,
    refreshes: u64,
    /// What is still to be told of refreshes.
    refreshed: VecDeque<Output>,
}

impl Member {
    /// A rank without links that uses the source so in each tree, of which there is at least one.
    pub fn new(source_uses: &[SourceUse], files: FilePolicy, now: Tick) -> Member {
        let trees = u32::try_from(source_uses.len()).ok().and_then(NonZeroU32::new);
        let trees = trees.expect("a job has a tree, and not many");
        let places = (0..).map(TreeIndex).zip(source_uses);
        let places = places.map(|(tree, &source_use)| Place { tree, trees, source_use });
        Member {
            nodes: places.map(|place| Node::new(place, files, now)).collect(),
            links: HashMap::new(),
            first: 0,
            polled: 0,
            elsewhere: VecDeque::new(),
            epoch: Epoch(0),
            refreshes: 0,
            refreshed: VecDeque::new(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Tick, input: Input, store: &mut impl Store) {
        if let Input::Received { link, message: Message::Ask { epoch, .. } } = &input
            && *epoch > self.epoch
            && self.links.contains_key(link)
        {
            // Before anything else: what is dropped may free extents.
            self.refresh(*epoch, Scope::new(ViewPath::root()), store);
        }
        let tree = match &input {
            Input::Want { key, .. } | Input::Prefetch { key } => self.owner(key),
            Input::Pulled { pull, .. } => tree_of_pull(*pull),
            Input::Source { job, .. } => tree_of_job(*job),
            Input::ParentUp { tree, link, .. } | Input::ChildUp { tree, link, .. } => {
                self.links.insert(*link, *tree);
                *tree
            }
            Input::Orphaned { tree } => *tree,
            Input::Received { link, .. } => match self.links.get(link) {
                Some(&tree) => tree,
                // It came over a link that has gone since.
                None => return,
            },
            Input::LinkDown { link } => match self.links.remove(link) {
                Some(tree) => tree,
                None => return,
            },
            Input::Refresh { epoch, scope } => {
                self.refresh(*epoch, scope.clone(), store);
                self.polled = 0;
                return;
            }
            Input::Time => {
                self.polled = 0;
                for node in &mut self.nodes {
                    node.handle(now, Input::Time, store);
                }
                return;
            }
        };
        self.pass_on(tree, now, input, store);
    }

    /// What is to be done next; `None` when all is done for now.
    pub fn poll(&mut self, now: Tick, store: &mut impl Store) -> Option<Output> {
        if let Some(output) = self.refreshed.pop_front() {
            return Some(output);
        }
        loop {
            while self.polled < self.nodes.len() {
                let tree = (self.first + self.polled) % self.nodes.len();
                if let Some(output) = self.nodes[tree].poll(now, store) {
                    return Some(output);
                }
                self.polled += 1;
            }
            let key = self.elsewhere.pop_front()?;
            let tree = self.owner(&key);
            self.pass_on(tree, now, Input::Prefetch { key }, store);
        }
    }

    fn pass_on(&mut self, tree: TreeIndex, now: Tick, input: Input, store: &mut impl Store) {
        (self.first, self.polled) = (tree.0 as usize, 0);
        let node = self.nodes.get_mut(self.first).expect("trees are numbered by this job");
        node.handle(now, input, store);
        self.elsewhere.extend(node.take_elsewhere());
    }

    /// Forgets what a refresh covers, and everything if others were missed before it: a rank's epoch
    /// says that all refreshes up to it were taken in. One that comes late is taken in again.
    fn refresh(&mut self, epoch: Epoch, scope: Scope, store: &mut impl Store) {
        let missed = epoch.0 > self.epoch.0.saturating_add(1);
        let scope = if missed { Scope::new(ViewPath::root()) } else { scope };
        self.epoch = self.epoch.max(epoch);
        self.refreshes += 1;
        for node in &mut self.nodes {
            node.refresh(epoch, &scope);
        }
        let dropped = store.drop_within(&scope);
        self.refreshed.push_back(Output::Refreshed { epoch, scope, dropped });
    }

    /// The last refresh that this rank has taken in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn owner(&self, key: &Key) -> TreeIndex {
        let trees = u32::try_from(self.nodes.len()).ok().and_then(NonZeroU32::new);
        owner(key, trees.expect("there is at least one"))
    }

    /// When `handle` with [`Input::Time`] is due at the latest; [`Tick::NEVER`] if never.
    pub fn next_due(&self) -> Tick {
        self.nodes.iter().map(Node::next_due).min().unwrap_or(Tick::NEVER)
    }

    /// What has been counted so far, in all trees.
    pub fn counters(&self) -> NodeCounters {
        let counters: NodeCounters = self.nodes.iter().map(Node::counters).sum();
        NodeCounters { refreshes: self.refreshes, ..counters }
    }

    /// What is under way, in all trees. All zero once every reader is answered and every link is
    /// idle.
    pub fn gauges(&self) -> Gauges {
        self.nodes.iter().map(Node::gauges).sum()
    }

    /// Has a bug in every tree from now on.
    #[cfg(feature = "planted")]
    pub fn plant(&mut self, bug: crate::Bug) {
        self.nodes.iter_mut().for_each(|node| node.plant(bug));
    }

    /// Its part in each tree, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The children in all trees.
    pub fn children(&self) -> impl Iterator<Item = Rank> {
        self.nodes.iter().flat_map(Node::children)
    }
}
