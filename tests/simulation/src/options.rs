//! The command line.

/// The task of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// One seed, with its story.
    One,
    /// So many seeds from the first on.
    Sweep { count: u64 },
    /// One seed three times, which must go the same way.
    Repeat,
    /// The shortest story of a seed that violates the same invariant.
    Shrink,
    /// Each mutation, until a seed notices it or so many have not.
    #[cfg(feature = "mutations")]
    Mutations { count: u64 },
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub task: Task,
    pub seed: u64,
    /// Whether the run tells its story, and not its outcome alone.
    pub tells: bool,
    /// Steps of the plan that are left out, as ranges.
    pub without: Vec<(usize, usize)>,
    /// The break that is switched on.
    pub mutation: Option<String>,
    /// Processes at one time.
    pub jobs: usize,
}

const HELP: &str = "\
rnostr-simulation --seed N              run one seed, and write its story
                  --seeds COUNT         run so many seeds, from --seed (1) on
                  --repeat --seed N     run a seed three times, and compare all that happened
                  --shrink --seed N     leave out steps while the seed violates the same invariant
                  --mutations COUNT     switch each mutation on, and look for a seed among so many that notices it
                                        (in a build with --features mutations)
  --mutation NAME    switches one mutation on (in such a build)
  --without A-B,C-D  leaves out these steps of the plan
  --quiet            writes the outcome without the story
  --jobs N           processes at one time; the default is 2";

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// The text for the caller.
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (task, without) = (Task::One, Vec::new());
        let mut options = Self { task, seed: 1, tells: true, without, mutation: None, jobs: 2 };
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} takes a value\n{HELP}"));
            match name.as_str() {
                "--seed" => options.seed = number(&value()?)?,
                "--seeds" => options.task = Task::Sweep { count: number(&value()?)? },
                "--repeat" => options.task = Task::Repeat,
                "--shrink" => options.task = Task::Shrink,
                #[cfg(feature = "mutations")]
                "--mutations" => options.task = Task::Mutations { count: number(&value()?)? },
                "--mutation" if cfg!(feature = "mutations") => options.mutation = Some(value()?),
                "--without" => options.without = ranges(&value()?)?,
                "--quiet" => options.tells = false,
                "--jobs" => options.jobs = number(&value()?)?.max(1) as usize,
                _ => return Err(HELP.to_owned()),
            }
        }
        Ok(options)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number\n{HELP}"))
}

fn ranges(text: &str) -> Result<Vec<(usize, usize)>, String> {
    let range = |text: &str| {
        let (from, to) = text.split_once('-').ok_or_else(|| format!("{text} is no range, such as 3-7\n{HELP}"))?;
        Ok((number(from)? as usize, number(to)? as usize))
    };
    text.split(',').filter(|text| !text.is_empty()).map(range).collect()
}
