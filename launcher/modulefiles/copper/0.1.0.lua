-- Copper for Lmod. Stands in ROOT/launcher/modulefiles/copper, beside ROOT/bin/copper and the scripts in
-- ROOT/launcher:
--     module use ROOT/launcher/modulefiles && module load copper

help([[
Copper: thousands of nodes load the same files as if from local disk.

    launch_copper.sh            start it on all nodes of a job
    copper doctor               what would keep that from succeeding
    stop_copper.sh              end it

Views appear at /tmp/$USER/copper. `launch_copper.sh --help` lists the options.
]])
whatis("Name: Copper")
whatis("Version: " .. myModuleVersion())
whatis("Description: read-only cooperative cache of a parallel file system")

local root = myFileName():match("^(.*)/launcher/modulefiles/copper/[^/]*$")
if not root then
    LmodError("copper: ", myFileName(), " does not stand in ROOT/launcher/modulefiles/copper")
else
    setenv("COPPER_ROOT", root)
    prepend_path("PATH", pathJoin(root, "launcher"))
    prepend_path("PATH", pathJoin(root, "bin"))
end
