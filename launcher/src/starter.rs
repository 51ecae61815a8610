//! What runs a command once on each host of a job: PALS, MPICH's and Open MPI's mpiexec, Slurm's
//! srun, clush, ssh. Pure but for [`Launcher::of_mpiexec`] and [`in_path`], which look at this
//! machine.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::secret::SECRET_VARIABLE;

/// A program that starts others on many hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// `mpiexec` of HPE's PALS.
    Pals,
    /// `mpiexec` of MPICH (Hydra).
    Mpich,
    /// `mpiexec` of Open MPI.
    OpenMpi,
    /// `srun`.
    Slurm,
    /// `clush` of ClusterShell.
    Clush,
    /// One `ssh` for each host.
    Ssh,
}

/// How the processes that a launcher starts live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// In one step of the launcher, which stays for as long as they do. They have the environment of
    /// whoever started it, and rank 0 its standard input.
    Step,
    /// On their own: the launcher ends, and they stay. Each has the standard input, and no
    /// environment.
    Detached,
}

/// What a launcher is to run, on which hosts.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The hosts, in order of rank.
    pub hosts: &'a [String],
    /// A file with the same, one a line.
    pub hosts_file: &'a Path,
    /// The program and its arguments.
    pub command: &'a [OsString],
    /// Further options of the launcher.
    pub options: &'a [String],
    /// Seconds that a host may take to answer ssh.
    pub connect_seconds: u32,
    /// Whether the secret is in the environment.
    pub secret: bool,
    /// Whether each process is told its rank by `--rank`, where the launcher can do that.
    pub numbered: bool,
}

/// A process to be started on this machine so that others are on their hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// The host that it is for; `None` if for all.
    pub host: Option<usize>,
}

impl Launcher {
    /// All of them.
    pub const ALL: [Launcher; 6] = [
        Launcher::Pals,
        Launcher::Mpich,
        Launcher::OpenMpi,
        Launcher::Slurm,
        Launcher::Clush,
        Launcher::Ssh,
    ];

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Launcher::Pals => "pals",
            Launcher::Mpich => "mpich",
            Launcher::OpenMpi => "openmpi",
            Launcher::Slurm => "slurm",
            Launcher::Clush => "clush",
            Launcher::Ssh => "ssh",
        }
    }

    /// How what it starts lives.
    pub fn life(self) -> Life {
        match self {
            Launcher::Pals | Launcher::Mpich | Launcher::OpenMpi | Launcher::Slurm => Life::Step,
            Launcher::Clush | Launcher::Ssh => Life::Detached,
        }
    }

    /// Which of the three programs that are called mpiexec this machine's is.
    pub fn of_mpiexec() -> Option<Launcher> {
        let output = Command::new("mpiexec").arg("--version").stdin(Stdio::null()).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        Launcher::of_version(&String::from_utf8_lossy(&said))
    }

    fn of_version(text: &str) -> Option<Launcher> {
        let text = text.to_ascii_lowercase();
        if text.contains("pals") {
            Some(Launcher::Pals)
        } else if text.contains("hydra") || text.contains("mpich") {
            Some(Launcher::Mpich)
        } else if text.contains("open mpi") || text.contains("openrte") || text.contains("prrte") {
            Some(Launcher::OpenMpi)
        } else {
            None
        }
    }

    /// The programs that it can be, the best first: where several MPIs are installed, one of them
    /// has the short name.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Launcher::Pals => &["mpiexec"],
            Launcher::Mpich => &["mpiexec.hydra", "mpiexec.mpich", "mpiexec"],
            Launcher::OpenMpi => &["mpiexec.openmpi", "mpirun.openmpi", "mpiexec"],
            Launcher::Slurm => &["srun"],
            Launcher::Clush => &["clush"],
            Launcher::Ssh => &["ssh"],
        }
    }

    /// Its program on this machine.
    pub fn program(self) -> Option<PathBuf> {
        self.programs().iter().find_map(|name| in_path(OsStr::new(name)))
    }

    /// What to start here so that `run` happens. `program` is what [`Launcher::program`] has found.
    pub fn starts(self, program: &Path, run: &Run<'_>) -> Vec<Start> {
        let words = |own: Vec<OsString>| {
            let mut words: Vec<OsString> = vec![program.into()];
            words.extend(own);
            words.extend(run.options.iter().map(OsString::from));
            words
        };
        match self {
            Launcher::Pals | Launcher::Mpich | Launcher::OpenMpi | Launcher::Slurm => {
                let mut words = words(self.step_words(run));
                words.extend(run.command.iter().cloned());
                vec![Start { words, host: None }]
            }
            Launcher::Clush => {
                let own = format!("-S -t {} --hostfile", run.connect_seconds);
                let mut own: Vec<OsString> = own.split(' ').map(OsString::from).collect();
                own.push(run.hosts_file.into());
                let mut words = words(own);
                words.push(quoted(run.command));
                vec![Start { words, host: None }]
            }
            Launcher::Ssh => {
                let own = format!("-T -o BatchMode=yes -o ConnectTimeout={}", run.connect_seconds);
                let own: Vec<OsString> = own.split(' ').map(OsString::from).collect();
                let start = |(index, host): (usize, &String)| {
                    let mut words = words(own.clone());
                    words.push(host.into());
                    let mut command = run.command.to_vec();
                    if run.numbered {
                        command.extend(["--rank".into(), index.to_string().into()]);
                    }
                    words.push(quoted(&command));
                    Start { words, host: Some(index) }
                };
                run.hosts.iter().enumerate().map(start).collect()
            }
        }
    }
}

impl Launcher {
    /// What a launcher that stays is told, but for the command: one process on each host, in order,
    /// bound to no core, in a folder that is everywhere, with our environment.
    fn step_words(self, run: &Run<'_>) -> Vec<OsString> {
        let text = match self {
            Launcher::Pals => "-n N --ppn 1 --hostfile F --cpu-bind none --envall",
            Launcher::Mpich => "-f F -ppn 1 -n N -wdir /",
            Launcher::OpenMpi => "--hostfile F -n N --map-by ppr:1:node --bind-to none --wdir /",
            Launcher::Slurm => {
                "--overlap -N N -n N --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1 --wait=0 \
                 --unbuffered --export=ALL -D / -w F"
            }
            Launcher::Clush | Launcher::Ssh => "",
        };
        let count = run.hosts.len().to_string();
        let word = |word: &str| match word {
            "F" => run.hosts_file.into(),
            "N" => OsString::from(&count),
            other => other.into(),
        };
        let mut words: Vec<OsString> = text.split_whitespace().map(word).collect();
        if self == Launcher::OpenMpi && run.secret {
            // The name alone. Only this one has to be told.
            words.extend(["-x".into(), SECRET_VARIABLE.into()]);
        }
        words
    }
}

impl fmt::Display for Launcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One word for a shell on the other side.
fn quoted(command: &[OsString]) -> OsString {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    shell_words::join(words).into()
}

/// A program of this name on this machine.
pub fn in_path(name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let is_program = |path: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(start: &Start) -> String {
        let words: Vec<_> = start.words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    fn starts(launcher: Launcher) -> Vec<Start> {
        let hosts = ["a".to_owned(), "b".to_owned()];
        let command = ["/opt/copper".into(), "agent".into(), "-v".into(), "/tmp/my view".into()];
        let options = ["--extra".to_owned()];
        let run = Run {
            hosts: &hosts,
            hosts_file: Path::new("/l/hosts"),
            command: &command,
            options: &options,
            connect_seconds: 10,
            numbered: false,
            secret: true,
        };
        launcher.starts(Path::new("/bin/it"), &run)
    }

    #[test]
    fn each_launcher_starts_the_command_once_on_each_host() {
        for launcher in Launcher::ALL {
            let starts = starts(launcher);
            let expected = if launcher == Launcher::Ssh { 2 } else { 1 };
            assert_eq!(starts.len(), expected, "{launcher}");
            for start in &starts {
                let line = text(start);
                assert!(line.contains(" --extra "), "{line}");
                assert!(line.contains("/opt/copper agent -v"), "{line}");
            }
        }
        let names = text(&starts(Launcher::OpenMpi)[0]);
        assert!(names.contains("-x COPPER_SECRET --extra"), "the name, never the value: {names}");
    }

    #[test]
    fn a_shell_on_the_other_side_gets_the_words_that_were_meant() {
        for launcher in [Launcher::Ssh, Launcher::Clush] {
            let line = text(&starts(launcher)[0]);
            assert!(line.ends_with("/opt/copper agent -v '/tmp/my view'"), "{line}");
        }
    }

    #[test]
    fn the_three_that_are_called_mpiexec_are_told_by_their_version() {
        assert_eq!(
            Launcher::of_version("HYDRA build details:\n Version: 4.0.2"),
            Some(Launcher::Mpich)
        );
        assert_eq!(Launcher::of_version("mpiexec (OpenRTE) 4.1.4"), Some(Launcher::OpenMpi));
        assert_eq!(Launcher::of_version("mpirun (Open MPI) 5.0.1"), Some(Launcher::OpenMpi));
        assert_eq!(Launcher::of_version("PALS 1.3.4"), Some(Launcher::Pals));
        assert_eq!(Launcher::of_version("something"), None);
    }
}
