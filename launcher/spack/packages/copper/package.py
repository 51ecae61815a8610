"""Builds Copper from source."""

import os

from spack.package import *

try:
    # Spack 1.0 and newer; before, spack.package has it.
    from spack_repo.builtin.build_systems.cargo import CargoPackage
except ImportError:
    pass


class Copper(CargoPackage):
    """A read-only cooperative cache that loads software and data on thousands of HPC nodes as from a
    local disk."""

    homepage = "https://github.com/argonne-lcf/copper"
    git = "https://github.com/argonne-lcf/copper.git"

    license("Apache-2.0")

    version("main", branch="main")
    version("0.1.0", tag="v0.1.0")

    depends_on("c", type="build")
    depends_on("rust@1.88:", type="build")
    depends_on("pkgconfig", type="build")
    # bindgen reads libfabric's headers with libclang.
    depends_on("llvm +clang", type="build")
    depends_on("libfabric@1.17:")
    # Views are mounted by its fusermount3, which only works with rights that Spack does not give: let
    # Spack take the system's, as an external package.
    depends_on("libfuse@3:", type="run")

    scripts = [
        "launch_copper_aurora.sh",
        "launch_copper_frontier.sh",
        "stop_copper.sh",
        "stop_copper_aurora.sh",
        "stop_copper_frontier.sh",
    ]

    def setup_build_environment(self, env):
        env.set("LIBFABRIC_PREFIX", self.spec["libfabric"].prefix)
        env.set("LIBCLANG_PATH", self.spec["llvm"].prefix.lib)
        env.set("COPPER_REVISION", str(self.spec.version))

    def setup_run_environment(self, env):
        env.set("COPPER_ROOT", self.prefix)

    @run_after("install")
    def install_scripts(self):
        # One text, which goes by the name that it is called by.
        install(join_path("launcher", "launch_copper.sh"), self.prefix.bin)
        for name in self.scripts:
            os.symlink("launch_copper.sh", join_path(self.prefix.bin, name))
