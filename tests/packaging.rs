//! The files by which sites install Copper, and what the README tells users to type: that they are of
//! this version, and do what they say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a program wrote.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// The functions of Lmod that the module file uses, each of which says how it was called.
const LMOD: &str = r#"
    local file, version = arg[1], arg[2]
    function myFileName() return file end
    function myModuleVersion() return version end
    function pathJoin(...) return table.concat({...}, "/") end
    function say(name) return function(...) print(name, ...) end end
    help, whatis, setenv = say("help"), say("whatis"), say("setenv")
    prepend_path, LmodError = say("prepend_path"), say("LmodError")
    loadfile(arg[3])()
"#;

fn module_file() -> PathBuf {
    root().join(format!("launcher/modulefiles/copper/{VERSION}.lua"))
}

fn loaded_from(place: &str) -> String {
    let script = std::env::temp_dir().join(format!("copper-lmod-{}.lua", std::process::id()));
    fs::write(&script, LMOD).expect("a temporary file");
    let printed =
        output(Command::new("lua5.4").arg(&script).args([place, VERSION]).arg(module_file()));
    fs::remove_file(script).expect("it was there");
    printed
}

#[test]
fn the_module_file_is_of_this_version_and_leads_to_where_it_stands() {
    let folder = fs::read_dir(root().join("launcher/modulefiles/copper")).expect("it is there");
    let files: Vec<PathBuf> = folder.map(|entry| entry.expect("readable").path()).collect();
    assert_eq!(files, [module_file()], "one version: that of Cargo.toml");
    let place = format!("/opt/copper/launcher/modulefiles/copper/{VERSION}.lua");
    let printed = loaded_from(&place);
    for line in [
        "setenv\tCOPPER_ROOT\t/opt/copper",
        "prepend_path\tPATH\t/opt/copper/bin",
        "prepend_path\tPATH\t/opt/copper/launcher",
        &format!("whatis\tVersion: {VERSION}"),
    ] {
        assert!(printed.lines().any(|own| own == line), "{line}: {printed}");
    }
    let printed = loaded_from("/etc/modulefiles/copper.lua");
    assert!(printed.contains("LmodError") && !printed.contains("setenv"), "{printed}");
}

/// What the recipe takes from Spack, each of which says how it was called.
const SPACK: &str = r#"
import sys, types

def say(name):
    return lambda *words, **named: print(name, *words, *(f"{k}={v}" for k, v in named.items()))

package = types.ModuleType("spack.package")
for name in ["license", "version", "depends_on", "install"]:
    setattr(package, name, say(name))
package.run_after = lambda phase: lambda method: method
package.join_path = lambda *parts: "/".join(map(str, parts))
package.CargoPackage = object
sys.modules["spack"], sys.modules["spack.package"] = types.ModuleType("spack"), package
names = {}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), names)
print("class", names["Copper"].__name__)
for script in names["Copper"].scripts:
    print("script", script)
"#;

#[test]
fn the_spack_recipe_builds_this_version_with_what_it_needs() {
    let recipe = root().join("launcher/spack/packages/copper/package.py");
    let mut command = Command::new("python3");
    let printed = output(command.args(["-B", "-c", SPACK]).arg(&recipe));
    let cargo = fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    let rust = cargo.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let rust = rust.expect("Cargo.toml names it").trim_matches('"');
    for line in [
        "class Copper".to_owned(),
        format!("version {VERSION} tag=v{VERSION}"),
        format!("depends_on rust@{rust}: type=build"),
        "depends_on libfabric@1.17:".to_owned(),
        "license Apache-2.0".to_owned(),
    ] {
        assert!(printed.lines().any(|own| own == line), "{line}: {printed}");
    }
    let links = printed.lines().filter_map(|line| line.strip_prefix("script "));
    let links: Vec<&str> = links.collect();
    let folder = fs::read_dir(root().join("launcher")).expect("it is there");
    let mut linked: Vec<String> = folder
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_symlink())
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    linked.sort();
    assert_eq!(links, linked, "every name of the script");
}

/// The README's shell scripts.
fn scripts(readme: &str) -> Vec<String> {
    let blocks = readme.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_readme_s_scripts_are_scripts_and_its_options_are_there() {
    let readme = fs::read_to_string(root().join("README.md")).expect("it is there");
    let scripts = scripts(&readme);
    assert!(scripts.len() >= 5, "on a laptop, Aurora, Frontier, any cluster: {scripts:?}");
    for script in &scripts {
        output(Command::new("bash").args(["-n", "-c", script]));
        for name in script.split(|c: char| !c.is_ascii_alphanumeric() && !"_./-".contains(c)) {
            let site = name.ends_with(".sh") && name.contains("_copper");
            let path = root().join("launcher").join(name.rsplit('/').next().unwrap_or(name));
            assert!(!site || path.exists(), "{name} is not there");
        }
    }
    let help = output(Command::new(env!("CARGO_BIN_EXE_copper")).args(["launch", "--help"]));
    let rows = readme.lines().filter(|line| line.starts_with("| `-"));
    let quoted = rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split('`'));
    let options: Vec<&str> = quoted
        .filter_map(|text| text.split(' ').next().filter(|word| word.starts_with('-')))
        .collect();
    assert!(options.len() > 30, "{options:?}");
    for option in options {
        let listed = |word: &str| word.trim_end_matches(',') == option;
        assert!(help.split_whitespace().any(listed), "copper launch --help has no {option}");
    }
}
