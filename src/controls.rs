//! The codes that an ioctl on any file of a mount may have, as release 1.0 had them, and their names for
//! `copper ctl`.

use copper_fuse::Category;

use crate::profile::Forgotten;

/// What is told of operations, a column each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Counts,
    Times,
    Hits,
    Misses,
    Negatives,
}

impl Column {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Column::Counts => "counts",
            Column::Times => "times",
            Column::Hits => "hits",
            Column::Misses => "misses",
            Column::Negatives => "negatives",
        }
    }

    pub(crate) fn forgotten(self) -> Forgotten {
        match self {
            Column::Counts => Forgotten::Calls,
            Column::Times => Forgotten::Times,
            Column::Hits => Forgotten::Hits,
            Column::Misses => Forgotten::Misses,
            Column::Negatives => Forgotten::Negatives,
        }
    }
}

/// What a code asks for. To log is to write a table into the run's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    ClearCache,
    LogCache,
    Clear(Column),
    Log(Column),
    ClearEvents(Category),
    LogEvents(Category),
    ClearIoctls,
    LogIoctls,
    /// Forgets all that profiles show, after one of it.
    Reset,
    /// Logs everything, and writes a profile.
    LogEverything,
    LogSize(Category),
}

/// One of the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) code: u32,
    pub(crate) name: &'static str,
    pub(crate) action: Action,
}

const fn control(code: u32, name: &'static str, action: Action) -> Control {
    Control { code, name, action }
}

/// All of them.
pub(crate) const CONTROLS: [Control; 25] = [
    control(100, "clear-cache", Action::ClearCache),
    control(200, "log-cache", Action::LogCache),
    control(300, "log-counts", Action::Log(Column::Counts)),
    control(400, "log-times", Action::Log(Column::Times)),
    control(500, "log-hits", Action::Log(Column::Hits)),
    control(600, "log-misses", Action::Log(Column::Misses)),
    control(700, "clear-counts", Action::Clear(Column::Counts)),
    control(800, "clear-hits", Action::Clear(Column::Hits)),
    control(900, "clear-misses", Action::Clear(Column::Misses)),
    control(1000, "clear-times", Action::Clear(Column::Times)),
    control(1100, "log-data-events", Action::LogEvents(Category::Data)),
    control(1200, "log-directory-events", Action::LogEvents(Category::Tree)),
    control(1300, "log-metadata-events", Action::LogEvents(Category::Metadata)),
    control(1400, "clear-data-events", Action::ClearEvents(Category::Data)),
    control(1500, "clear-directory-events", Action::ClearEvents(Category::Tree)),
    control(1600, "clear-metadata-events", Action::ClearEvents(Category::Metadata)),
    control(1700, "log-negatives", Action::Log(Column::Negatives)),
    control(1800, "clear-negatives", Action::Clear(Column::Negatives)),
    control(1900, "reset", Action::Reset),
    control(2000, "log-everything", Action::LogEverything),
    control(2100, "clear-ioctl-events", Action::ClearIoctls),
    control(2200, "log-ioctl-events", Action::LogIoctls),
    control(2300, "log-data-size", Action::LogSize(Category::Data)),
    control(2400, "log-directory-size", Action::LogSize(Category::Tree)),
    control(2500, "log-metadata-size", Action::LogSize(Category::Metadata)),
];

/// The one with this code.
pub(crate) fn by_code(code: u32) -> Option<Control> {
    CONTROLS.into_iter().find(|control| control.code == code)
}

/// The one with this name, or with this code as text.
pub(crate) fn by_word(word: &str) -> Option<Control> {
    let code = word.parse().ok();
    CONTROLS.into_iter().find(|control| control.name == word || Some(control.code) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_every_hundred_to_2500_is_one() {
        let codes: Vec<u32> = CONTROLS.iter().map(|control| control.code).collect();
        assert_eq!(codes, (1..=25).map(|n| n * 100).collect::<Vec<_>>());
        let names: std::collections::HashSet<_> = CONTROLS.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), CONTROLS.len());
        assert_eq!(by_word("1900"), by_word("reset"));
        assert_eq!((by_code(0x5401), by_word("terminal")), (None, None));
    }
}
