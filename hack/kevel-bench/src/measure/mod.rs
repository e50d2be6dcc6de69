//! A run: two runtimes, and the groups of rows that are measured with them.

mod load;
mod pod;
mod pull;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    Options, cgroup, group_name,
    images::Images,
    report::Facts,
    sample::{Group, Samples, Which},
    side::{Place, Side},
};

/// A run.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) samples: Samples,
    pub(crate) facts: Facts,
    sides: [Side; 2],
    images: Images,
    mark: String,
    dir: Option<tempfile::TempDir>,
    /// Makes names of pods unique.
    pods: u32,
    /// When an image was last removed, see [`pull`].
    removed: Option<std::time::Instant>,
}

impl Bench {
    /// Starts both runtimes and pulls what every group needs.
    pub(crate) async fn start(options: Options) -> anyhow::Result<Self> {
        let search = search_path();
        let keveld = match &options.keveld {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("keveld"),
        };
        if !keveld.is_file() {
            bail!("{} is not there; hack/bench builds it", keveld.display());
        }
        let baseline = match &options.baseline {
            Some(path) => path.clone(),
            None => find("containerd", &search)?,
        };
        for needed in ["containerd-shim-runc-v2", "runc", "ip"] {
            find(needed, &search)?;
        }
        let baseline_name = baseline.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let facts = Facts::collect(&keveld, &baseline, &search).await;
        let big = options.wants(Group::Pull);
        eprintln!("kevel-bench: building and serving images");
        let images = Images::serve(options.images.as_deref(), options.quick, big).await?;
        let dir = tempfile::Builder::new().prefix("kvb-").tempdir_in(&options.work)?;
        let mark = format!("kevel-bench-{}", std::process::id());
        let place = Place { dir: dir.path(), mark: &mark, search, images: &images };
        let kevel = Side::start("kevel", keveld, 0, &place).await?;
        let name = if options.baseline.is_some() { format!("baseline {baseline_name}") } else { baseline_name };
        let other = Side::start(&name, baseline, 1, &place).await;
        let sides = match other {
            Ok(other) => [kevel, other],
            Err(error) => {
                let mut kevel = kevel;
                kevel.clean().await?;
                images.stop().await?;
                cgroup::remove(&mark)?;
                return Err(error);
            }
        };
        let dir = Some(dir);
        Ok(Self { options, samples: Samples::default(), facts, sides, images, mark, dir, pods: 0, removed: None })
    }

    fn side(&mut self, which: Which) -> &mut Side {
        &mut self.sides[which as usize]
    }

    /// What the runtimes are called, Kevel first.
    pub(crate) fn names(&self) -> [String; 2] {
        [self.sides[0].name.clone(), self.sides[1].name.clone()]
    }

    /// A name that no other pod of the run has.
    fn pod_name(&mut self) -> String {
        self.pods += 1;
        format!("pod{}", self.pods)
    }

    /// Rounds of what takes long.
    fn few(&self) -> u32 {
        self.options.rounds.div_ceil(5)
    }

    /// Measures every wanted group. Pulls are spread over the run, because they have to keep a distance from removals.
    pub(crate) async fn measure(&mut self) -> anyhow::Result<()> {
        for which in Which::BOTH {
            let (busybox, pause) = (self.images.reference("busybox"), self.images.reference("pause"));
            let mut client = self.side(which).client()?;
            client.pull(&busybox).await?;
            client.pull(&pause).await?;
        }
        let rounds = self.few();
        for round in 0..rounds {
            if self.options.wants(Group::Pull) {
                self.say(Group::Pull, round, rounds);
                self.pull_round(round).await?;
            }
            if self.options.wants(Group::Pod) || self.options.wants(Group::Exec) {
                self.say(Group::Pod, round, rounds);
                self.pod_rounds(round, self.options.rounds.div_ceil(rounds)).await?;
            }
            if self.options.wants(Group::Load) {
                self.say(Group::Load, round, rounds);
                self.load_round(round).await?;
            }
        }
        Ok(())
    }

    fn say(&self, group: Group, round: u32, rounds: u32) {
        eprintln!("kevel-bench: {}, {} of {rounds}", group_name(group), round + 1);
    }

    /// Removes every trace of the run but its report.
    pub(crate) async fn clean(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for side in &mut self.sides {
            outcome = outcome.and(side.clean().await);
        }
        outcome = outcome.and(self.images.stop().await).and(cgroup::remove(&self.mark));
        if let Some(dir) = self.dir.take() {
            let path = dir.path().to_owned();
            outcome = outcome.and(dir.close().with_context(|| format!("removing {}", path.display())));
        }
        outcome
    }
}

/// Where programs are: what `hack/install-deps` builds comes first, as both runtimes are to use the same shim.
fn search_path() -> OsString {
    #[expect(clippy::disallowed_methods, reason = "finds foreign programs as a shell does")]
    let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
    let deps = match variable("KEVEL_DEPS") {
        deps if deps.is_empty() => PathBuf::from(variable("HOME")).join(".cache/kevel"),
        deps => deps.into(),
    };
    let mut search = deps.join("bin").into_os_string();
    search.push(":");
    search.push(variable("PATH"));
    search.push(":/usr/sbin:/usr/bin:/sbin:/bin");
    search
}

/// The first program of this name on the search path.
pub(crate) fn find(name: &str, search: &OsString) -> anyhow::Result<PathBuf> {
    let mut candidates = std::env::split_paths(search).filter(|folder| folder.is_absolute());
    candidates
        .find_map(|folder: PathBuf| Some(folder.join(name)).filter(|path: &PathBuf| Path::is_file(path)))
        .with_context(|| format!("{name} is not here; hack/install-deps installs it"))
}
