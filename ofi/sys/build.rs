//! Finds libfabric, compiles the shim of its inline calls and generates the bindings.
//!
//! Where: `LIBFABRIC_PREFIX` (with `include` and `lib` or `lib64` below it, as on a Cray), else
//! what pkg-config answers. What was found goes to dependents as `DEP_FABRIC_LIBDIR`,
//! `DEP_FABRIC_ROOT`, `DEP_FABRIC_VERSION` and, where the loader would not look by itself,
//! `DEP_FABRIC_RPATH`; a package that makes a binary sets the rpath from it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::{env, panic};

use bindgen::callbacks::{IntKind, ItemInfo, ParseCallbacks};

/// The oldest headers that the bindings are tested with: Debian 12's.
const VERSION_MIN: (i64, i64) = (1, 17);

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={}", error.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    for file in ["build.rs", "wrapper.h", "shim.h", "shim.c"] {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-env-changed=LIBFABRIC_PREFIX");
    let found = Found::search()?;
    compile_shim(&found)?;
    let version = generate(&found)?;

    println!("cargo::rustc-link-lib=fabric");
    if let Some(search) = &found.search {
        println!("cargo::rustc-link-search=native={}", search.display());
        // For this package's own tests; a link argument does not reach dependents.
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", search.display());
        println!("cargo::metadata=rpath={}", search.display());
    }
    println!("cargo::metadata=libdir={}", found.libdir.display());
    println!("cargo::metadata=root={}", found.root.display());
    println!("cargo::metadata=version={version}");
    Ok(())
}

/// Where libfabric lies.
struct Found {
    root: PathBuf,
    libdir: PathBuf,
    /// The library's folder, if linker and loader do not search it by themselves.
    search: Option<PathBuf>,
    includes: Vec<PathBuf>,
}

impl Found {
    fn search() -> Result<Found, String> {
        match env::var_os("LIBFABRIC_PREFIX") {
            Some(prefix) if !prefix.is_empty() => Found::below(Path::new(&prefix)),
            _ => Found::by_pkg_config(),
        }
    }

    fn below(prefix: &Path) -> Result<Found, String> {
        let include = prefix.join("include");
        if !include.join("rdma/fabric.h").is_file() {
            return Err(format!(
                "LIBFABRIC_PREFIX={} has no include/rdma/fabric.h: set it to the folder that \
                 holds libfabric's include and lib (or lib64), or unset it to use pkg-config",
                prefix.display()
            ));
        }
        let libdir = ["lib64", "lib"].iter().map(|name| prefix.join(name)).find(|folder| {
            folder.join("libfabric.so").exists() || folder.join("libfabric.a").exists()
        });
        let libdir = libdir.ok_or_else(|| {
            format!(
                "LIBFABRIC_PREFIX={} has no libfabric.so in lib64 or lib: install libfabric's \
                 development files there, or unset it to use pkg-config",
                prefix.display()
            )
        })?;
        Ok(Found {
            root: prefix.to_owned(),
            search: Some(libdir.clone()),
            libdir,
            includes: vec![include],
        })
    }

    fn by_pkg_config() -> Result<Found, String> {
        // pkg-config leaves out the folders that the linker searches anyway.
        let library = pkg_config::Config::new()
            .cargo_metadata(false)
            .print_system_libs(false)
            .probe("libfabric")
            .map_err(|error| {
                let first = error.to_string();
                let first = first.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                format!(
                    "libfabric's headers were not found: install libfabric-dev and pkg-config \
                     (Debian, Ubuntu) or libfabric-devel and pkgconf (RHEL, SUSE), or set \
                     LIBFABRIC_PREFIX to an installation, on a Cray \
                     /opt/cray/libfabric/<version>; pkg-config said: {first}"
                )
            })?;
        let variable = |name| pkg_config::get_variable("libfabric", name).unwrap_or_default();
        Ok(Found {
            root: variable("prefix").into(),
            libdir: variable("libdir").into(),
            search: library.link_paths.first().cloned(),
            includes: library.include_paths,
        })
    }
}

fn compile_shim(found: &Found) -> Result<(), String> {
    cc::Build::new()
        .file("shim.c")
        .includes(&found.includes)
        .warnings(true)
        .extra_warnings(false)
        .try_compile("copper_libfabric_shim")
        .map_err(|error| {
            format!(
                "shim.c did not compile: a C compiler is needed (package gcc, or set CC), and \
                 libfabric {}.{} or newer: {error}",
                VERSION_MIN.0, VERSION_MIN.1
            )
        })
}

/// Writes `bindings.rs` and returns the version of the headers that it was made from.
fn generate(found: &Found) -> Result<String, String> {
    let version = Rc::new(Cell::new((0, 0)));
    let builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(found.includes.iter().map(|path| format!("-I{}", path.display())))
        .parse_callbacks(Box::new(Names { version: Rc::clone(&version) }))
        .allowlist_function("shim_fi_.*")
        .allowlist_function("fi_(getinfo|freeinfo|dupinfo|fabric|version|strerror)")
        .allowlist_var("shim_FI_.*")
        .allowlist_type("fi_(context2|cq_msg_entry|cq_err_entry)")
        .opaque_type("fid(_.*)?")
        .prepend_enum_name(false)
        .derive_debug(false)
        .derive_default(true)
        .generate_comments(false);
    // bindgen panics where it finds no libclang; the message says enough without a backtrace.
    panic::set_hook(Box::new(|_| {}));
    let bindings = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()));
    drop(panic::take_hook());
    let bindings = bindings
        .map_err(|panic| {
            let said = panic.downcast_ref::<String>().map_or("no reason given", String::as_str);
            format!(
                "bindgen could not start; it needs libclang: install libclang-dev (Debian, \
                 Ubuntu) or clang-devel (RHEL, SUSE), or set LIBCLANG_PATH to the folder of \
                 libclang.so; it said: {said}"
            )
        })?
        .map_err(|error| format!("bindgen could not read libfabric's headers: {error}"))?;
    let (major, minor) = version.get();
    if (major, minor) < VERSION_MIN {
        return Err(format!(
            "libfabric {major}.{minor} is older than {}.{}, the oldest that Copper supports: \
             install a newer one and set LIBFABRIC_PREFIX to it",
            VERSION_MIN.0, VERSION_MIN.1
        ));
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?);
    bindings
        .write_to_file(out.join("bindings.rs"))
        .map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    Ok(format!("{major}.{minor}"))
}

/// Strips the shim's prefix and notes the headers' version.
#[derive(Debug)]
struct Names {
    version: Rc<Cell<(i64, i64)>>,
}

impl ParseCallbacks for Names {
    fn item_name(&self, item: ItemInfo<'_>) -> Option<String> {
        item.name.strip_prefix("shim_").map(str::to_owned)
    }

    fn int_macro(&self, name: &str, value: i64) -> Option<IntKind> {
        let (major, minor) = self.version.get();
        match name {
            "FI_MAJOR_VERSION" => self.version.set((value, minor)),
            "FI_MINOR_VERSION" => self.version.set((major, value)),
            _ => {}
        }
        None
    }
}
