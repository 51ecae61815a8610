//! One target under libFuzzer: the one that `COPPER_FUZZ_TARGET` names, with its planted bug if
//! `COPPER_FUZZ_PLANTED` is set. What it begins with goes to the folder `COPPER_FUZZ_CORPUS`.

#![no_main]

#[path = "../targets.rs"]
mod targets;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use targets::Target;

thread_local! {
    static TARGET: Target = chosen();
    static PLANTED: bool = std::env::var_os("COPPER_FUZZ_PLANTED").is_some();
}

fn chosen() -> Target {
    let name = std::env::var("COPPER_FUZZ_TARGET").expect("ci/fuzz.sh sets it");
    let named = targets::all().into_iter().find(|target| target.name == name);
    named.unwrap_or_else(|| panic!("there is no target {name}"))
}

fn write_corpus() {
    let folder = std::env::var_os("COPPER_FUZZ_CORPUS").expect("ci/fuzz.sh sets it");
    TARGET.with(|target| {
        for (index, input) in target.corpus.iter().enumerate() {
            let path = Path::new(&folder).join(index.to_string());
            std::fs::write(path, input).expect("the folder is there");
        }
    });
}

fuzz_target!(init: write_corpus(), |input: &[u8]| {
    TARGET.with(|target| (target.run)(input, PLANTED.with(|planted| *planted)));
});
