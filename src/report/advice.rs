//! What an environment could do without: absent names by class, entries of search paths that give
//! nothing, files that nobody has touched. Made of the paths that a run with `-A` has counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write;

use super::environment::Environment;
use super::figure::{bytes, count};
use super::run::{PathTotals, Paths};

/// Examples that are shown of a class.
const EXAMPLES: usize = 3;

/// Rows of a table of the text.
const ROWS: usize = 40;

/// Why somebody asks for a name that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    VirtualEnvironment,
    HardwareCapabilities,
    ExtensionModule,
    Library,
    Bytecode,
    Module,
    PackageMetadata,
    Program,
    Other,
}

impl Class {
    /// Of an absent path, by its name and where it was looked for.
    pub(super) fn of(path: &str) -> Class {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        let module_suffixes = [".abi3.so", "module.so"];
        if name == "pyvenv.cfg" || name == "pybuilddir.txt" || ends(&["._pth"]) {
            Class::VirtualEnvironment
        } else if path.contains("/glibc-hwcaps") || hardware_folder(parent, name) {
            Class::HardwareCapabilities
        } else if name.ends_with(".so") && (!name.starts_with("lib") || ends(&module_suffixes)) {
            Class::ExtensionModule
        } else if name.ends_with(".so") || name.contains(".so.") {
            Class::Library
        } else if name == "__pycache__" || ends(&[".pyc"]) {
            Class::Bytecode
        } else if ends(&[".py", ".pyi"]) || parent.ends_with("-packages") && !name.contains('.') {
            Class::Module
        } else if ends(&[".dist-info", ".egg-info", ".egg", ".pth", "METADATA", ".egg-link"]) {
            Class::PackageMetadata
        } else if parent.ends_with("/bin") || parent.ends_with("/sbin") {
            Class::Program
        } else {
            Class::Other
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Class::VirtualEnvironment => "virtual-env probe",
            Class::HardwareCapabilities => "hwcaps",
            Class::ExtensionModule => "Python extension",
            Class::Library => "missing library",
            Class::Bytecode => "missing bytecode",
            Class::Module => "Python module",
            Class::PackageMetadata => "package metadata",
            Class::Program => "program in PATH",
            Class::Other => "other",
        }
    }

    /// What makes such questions fewer.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Class::VirtualEnvironment => "a few for each start of Python; nothing to do",
            Class::HardwareCapabilities => {
                "fewer entries in LD_LIBRARY_PATH, or an RPATH in the programs"
            }
            Class::ExtensionModule => {
                "fewer entries in PYTHONPATH; the few of each package's __init__ are Python's own"
            }
            Class::Module => "fewer entries in PYTHONPATH",
            Class::Library => "the folder with the libraries first in LD_LIBRARY_PATH, or an RPATH",
            Class::Bytecode => "python -m compileall on the environment, once, where it lies",
            Class::PackageMetadata => {
                "fewer entries in PYTHONPATH; no .pth files that are not needed"
            }
            Class::Program => "the folder with the programs first in PATH",
            Class::Other => "",
        }
    }
}

/// Folders that older loaders try for each kind of processor.
fn hardware_folder(parent: &str, name: &str) -> bool {
    let of_processor = ["tls", "haswell", "x86_64", "avx512_1", "xeon_phi"];
    of_processor.contains(&name)
        && (parent.contains("lib") || of_processor.iter().any(|it| parent.ends_with(it)))
}

/// Absent names of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Absent {
    pub(super) names: u64,
    pub(super) probes: u64,
    pub(super) examples: Vec<String>,
}

/// Absent names by class. One that was there at times is not absent.
pub(super) fn absent(paths: &Paths) -> BTreeMap<Class, Absent> {
    let mut classes: BTreeMap<Class, Absent> = BTreeMap::new();
    for (path, totals) in absent_paths(paths) {
        let class = classes.entry(Class::of(path)).or_default();
        class.names += 1;
        class.probes += totals.negatives;
        if class.examples.len() < EXAMPLES {
            class.examples.push(path.to_owned());
        }
    }
    classes
}

fn metadata(paths: &Paths) -> impl Iterator<Item = (&str, &PathTotals)> {
    let of = paths.iter().filter(|((category, _), _)| category == "metadata");
    of.map(|((_, path), totals)| (&**path, totals))
}

fn absent_paths(paths: &Paths) -> impl Iterator<Item = (&str, &PathTotals)> {
    metadata(paths).filter(|(_, totals)| totals.negatives > 0 && !totals.was_found())
}

/// A name that was looked for in several folders, as along a search path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wandering {
    pub(super) name: String,
    /// Folders that do not have it.
    pub(super) absent_in: u64,
    pub(super) probes: u64,
    /// A folder that has it.
    pub(super) found_in: Option<String>,
}

/// Names that at least two folders do not have, those with the most folders first.
pub(super) fn wandering(paths: &Paths) -> Vec<Wandering> {
    let mut names: HashMap<&str, Wandering> = HashMap::new();
    for (path, totals) in absent_paths(paths) {
        let (_, name) = path.rsplit_once('/').unwrap_or(("", path));
        let entry = names.entry(name).or_insert_with(|| Wandering {
            name: name.to_owned(),
            absent_in: 0,
            probes: 0,
            found_in: None,
        });
        entry.absent_in += 1;
        entry.probes += totals.negatives;
    }
    for (path, _) in metadata(paths).filter(|(_, totals)| totals.was_found()) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(entry) = names.get_mut(name) {
            entry.found_in.get_or_insert_with(|| parent.to_owned());
        }
    }
    let mut names: Vec<Wandering> = names.into_values().filter(|it| it.absent_in > 1).collect();
    names.sort_by(|a, b| (b.absent_in, b.probes, &a.name).cmp(&(a.absent_in, a.probes, &b.name)));
    names
}

/// What an entry of a search path was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Something was found there.
    Gives,
    /// Names were looked for, and none found.
    Nothing,
    /// The folder itself is not there.
    Absent,
    /// Nobody looked.
    Untouched,
    /// It stands in the same variable before.
    Twice,
}

/// An entry of a search path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) variable: String,
    pub(super) folder: String,
    pub(super) probes: u64,
    pub(super) worth: Worth,
}

/// Judges the entries of variables, with `mounts` cut off their beginnings.
pub(super) fn entries(
    variables: &[(String, String)],
    mounts: &[String],
    paths: &Paths,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (variable, value) in variables {
        let mut seen = HashSet::new();
        for folder in value.split(':').filter(|it| it.starts_with('/')) {
            let folder = within_view(folder, mounts);
            let (probes, worth) = worth(&folder, paths);
            let worth = if seen.insert(folder.clone()) { worth } else { Worth::Twice };
            entries.push(Entry { variable: variable.clone(), folder, probes, worth });
        }
    }
    entries
}

/// A path without the view that it may lie in, and without an end in `/`.
pub(super) fn within_view(path: &str, mounts: &[String]) -> String {
    let inner = mounts.iter().find_map(|mount| {
        path.strip_prefix(&**mount).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let path = inner.unwrap_or(path).trim_end_matches('/');
    if path.is_empty() { "/".to_owned() } else { path.to_owned() }
}

fn worth(folder: &str, paths: &Paths) -> (u64, Worth) {
    let below = format!("{}/", folder.trim_end_matches('/'));
    let (mut probes, mut is_found, mut is_touched) = (0, false, false);
    for category in ["metadata", "data"] {
        let from = (category.to_owned(), below.clone());
        let inside = paths
            .range(from..)
            .take_while(|((of, path), _)| of == category && path.starts_with(&below));
        for ((_, path), totals) in inside {
            let rest = &path[below.len()..];
            is_touched = true;
            is_found |= totals.was_found() && rest != "glibc-hwcaps";
            if !rest.contains('/') || rest.starts_with("glibc-hwcaps/") {
                probes += totals.negatives;
            }
        }
    }
    let absent = |path: &str| {
        let totals = paths.get(&("metadata".to_owned(), path.to_owned()));
        totals.filter(|totals| totals.negatives > 0 && !totals.was_found()).map(|it| it.negatives)
    };
    let above = std::iter::successors(Some(folder), |it| it.rsplit_once('/').map(|(it, _)| it));
    match above.filter(|it| !it.is_empty()).find_map(absent) {
        Some(negatives) if !is_touched => (negatives, Worth::Absent),
        _ if is_found => (probes, Worth::Gives),
        _ if is_touched => (probes, Worth::Nothing),
        _ => (0, Worth::Untouched),
    }
}

/// Everything, as text.
pub(super) fn text(
    paths: &Paths,
    entries: &[Entry],
    environment: Option<&Environment>,
    floor: u64,
) -> String {
    let mut text = String::new();
    if floor > 0 {
        line(
            &mut text,
            format_args!(
                "There were more paths than the tables hold: those asked for less than {floor} times may be missing.\n"
            ),
        );
    }
    line(&mut text, format_args!("Absent names by class"));
    let classes = absent(paths);
    if classes.is_empty() {
        line(&mut text, format_args!("  none"));
    }
    for (class, absent) in &classes {
        let (names, probes) = (count(absent.names), count(absent.probes));
        line(&mut text, format_args!("  {:<18} {names:>9} names {probes:>9} probes", class.name()));
        for example in &absent.examples {
            line(&mut text, format_args!("      {example}"));
        }
        if !class.advice().is_empty() {
            line(&mut text, format_args!("      try: {}", class.advice()));
        }
    }
    line(&mut text, format_args!("\nNames that several folders do not have"));
    let names = wandering(paths);
    for Wandering { name, absent_in, probes, found_in } in names.iter().take(ROWS) {
        let end =
            found_in.as_ref().map_or("found nowhere".to_owned(), |it| format!("found in {it}"));
        line(&mut text, format_args!("  {name}: {absent_in} folders, {probes} probes, {end}"));
    }
    if names.is_empty() {
        line(&mut text, format_args!("  none"));
    }
    entries_text(&mut text, entries);
    match environment {
        Some(environment) => environment_text(&mut text, environment),
        None => line(
            &mut text,
            format_args!(
                "\nFiles of an environment that nobody has touched: say which with --environment DIR"
            ),
        ),
    }
    text
}

fn entries_text(text: &mut String, entries: &[Entry]) {
    line(
        text,
        format_args!("\nEntries of PATH, LD_LIBRARY_PATH and PYTHONPATH, as they are set here"),
    );
    for Entry { variable, folder, probes, worth } in entries {
        let verdict = match worth {
            Worth::Gives => "gives",
            Worth::Nothing => "gives nothing: leave it out",
            Worth::Absent => "is not there: leave it out",
            Worth::Untouched => "was not looked into",
            Worth::Twice => "stands there twice: leave one out",
        };
        line(text, format_args!("  {variable} {folder}: {probes} probes in vain, {verdict}"));
    }
    if entries.is_empty() {
        line(text, format_args!("  none: set them as the job has them"));
    }
}

fn environment_text(text: &mut String, environment: &Environment) {
    let Environment { folder, touched, all, never } = environment;
    line(
        text,
        format_args!(
            "\nOf {} files ({}) below {} were touched {} ({})",
            count(all.files),
            bytes(all.bytes),
            folder.display(),
            count(touched.files),
            bytes(touched.bytes),
        ),
    );
    line(text, format_args!("Never touched, largest first"));
    for (path, size) in never.iter().take(ROWS) {
        let (files, size) = (count(size.files), bytes(size.bytes));
        line(text, format_args!("  {size:>10} {files:>8} files  {}", path.display()));
    }
    if never.len() > ROWS {
        line(text, format_args!("  and {} more", count((never.len() - ROWS) as u64)));
    }
}

/// The paths that a run has used: what was found, and the sources of bytecode that was. Python does not
/// take a file of `__pycache__` without its source, but looks at the source's attributes alone, which the
/// kernel has from the listing of the folder: that question comes to no daemon.
pub(super) fn used(paths: &Paths) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let found = paths.iter().filter(|((of, _), totals)| of != "tree" && totals.was_found());
    for ((_, path), _) in found {
        if let Some((folder, name)) = path.rsplit_once("/__pycache__/")
            && let Some((module, "pyc")) = name
                .split_once('.')
                .map(|(it, rest)| (it, rest.rsplit('.').next().unwrap_or_default()))
        {
            used.insert(format!("{folder}/{module}.py"));
        }
        used.insert(path.clone());
    }
    used
}

/// The paths that are used, for an allow-list: one a line.
/// Names with an end of line are left out.
pub(super) fn allow_list(found: &BTreeSet<String>, environment: Option<&Environment>) -> String {
    let paths = match environment {
        Some(environment) => environment.kept(),
        None => found.iter().cloned().collect(),
    };
    paths.into_iter().filter(|path| !path.contains('\n')).map(|path| path + "\n").collect()
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a string takes everything");
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(rows: &[(&str, &str, u64, u64)]) -> Paths {
        let row = |&(category, path, events, negatives): &(&str, &str, u64, u64)| {
            let totals = PathTotals { events, misses: 0, negatives };
            ((category.to_owned(), path.to_owned()), totals)
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn absent_names_have_their_class() {
        let cases = [
            ("/env/bin/pyvenv.cfg", Class::VirtualEnvironment),
            ("/env/lib/glibc-hwcaps/x86-64-v3/libm.so.6", Class::HardwareCapabilities),
            ("/env/lib/tls", Class::HardwareCapabilities),
            ("/env/site-packages/numpy.cpython-312-x86_64-linux-gnu.so", Class::ExtensionModule),
            ("/env/site-packages/numpy.abi3.so", Class::ExtensionModule),
            ("/env/site-packages/json/__init__.so", Class::ExtensionModule),
            ("/env/lib/libmpi.so.12", Class::Library),
            ("/env/a/__pycache__/b.cpython-312.pyc", Class::Bytecode),
            ("/env/a/numpy.py", Class::Module),
            ("/env/site-packages/numpy", Class::Module),
            ("/env/a/numpy-2.dist-info", Class::PackageMetadata),
            ("/usr/bin/python3", Class::Program),
            ("/home/user/.git", Class::Other),
        ];
        for (path, class) in cases {
            assert_eq!(Class::of(path), class, "{path}");
        }
        let all = paths(&[
            ("metadata", "/e/lib/liba.so", 3, 3),
            ("metadata", "/e/lib/libb.so", 2, 2),
            ("metadata", "/e/lib/libc.so", 5, 1),
            ("data", "/e/lib/libd.so", 1, 1),
        ]);
        let absent = absent(&all);
        let libraries = &absent[&Class::Library];
        assert_eq!((absent.len(), libraries.names, libraries.probes), (1, 2, 5));
        assert_eq!(libraries.examples, ["/e/lib/liba.so", "/e/lib/libb.so"]);
    }

    #[test]
    fn a_name_that_several_folders_do_not_have_is_told_with_where_it_is() {
        let all = paths(&[
            ("metadata", "/a/libx.so", 3, 3),
            ("metadata", "/b/libx.so", 2, 2),
            ("metadata", "/c/libx.so", 7, 0),
            ("metadata", "/a/once", 1, 1),
        ]);
        let found_in = Some("/c".to_owned());
        let expected = Wandering { name: "libx.so".into(), absent_in: 2, probes: 5, found_in };
        assert_eq!(wandering(&all), [expected]);
    }

    #[test]
    fn entries_of_search_paths_are_judged_by_what_was_found_there() {
        let all = paths(&[
            ("metadata", "/good/lib", 1, 0),
            ("metadata", "/good/lib/libx.so", 4, 0),
            ("metadata", "/good/lib/liby.so", 2, 2),
            ("metadata", "/vain", 1, 0),
            ("metadata", "/vain/libx.so", 6, 6),
            ("metadata", "/vain/glibc-hwcaps", 1, 1),
            ("metadata", "/gone", 5, 5),
            ("metadata", "/vainly/libx.so", 1, 0),
        ]);
        let value = "/view/0/good/lib/:/vain:/gone/lib::relative:/never:/vain/";
        let variables = [("LD_LIBRARY_PATH".to_owned(), value.to_owned())];
        let entries = entries(&variables, &["/view/0".to_owned()], &all);
        let told: Vec<_> = entries.iter().map(|it| (&*it.folder, it.probes, it.worth)).collect();
        let expected = [
            ("/good/lib", 2, Worth::Gives),
            ("/vain", 7, Worth::Nothing),
            ("/gone/lib", 5, Worth::Absent),
            ("/never", 0, Worth::Untouched),
            ("/vain", 7, Worth::Twice),
        ];
        assert_eq!(told, expected);
        let text = text(&all, &entries, None, 0);
        assert!(
            text.contains("LD_LIBRARY_PATH /vain: 7 probes in vain, gives nothing: leave it out"),
            "{text}"
        );
    }

    #[test]
    fn bytecode_is_used_with_its_source_and_a_listing_uses_nothing() {
        let all = paths(&[
            ("data", "/e/__pycache__/a.cpython-312.opt-1.pyc", 1, 0),
            ("metadata", "/e/__pycache__/gone.cpython-312.pyc", 2, 2),
            ("tree", "/e/listed", 2, 0),
        ]);
        let used: Vec<String> = used(&all).into_iter().collect();
        assert_eq!(used, ["/e/__pycache__/a.cpython-312.opt-1.pyc", "/e/a.py"]);
    }

    #[test]
    fn an_allow_list_is_a_path_a_line() {
        assert_eq!(allow_list(&["/b", "/a", "/c\nd"].map(str::to_owned).into(), None), "/a\n/b\n");
    }
}
