//! One request's way through the ranks, put together from what their recorders hold.
//!
//! A rank's events name the question, pull or job that they are about by numbers; a question's number
//! and the two ranks say which of one rank's questions is which of the other's.

use super::{Flight, Line};

/// Ranks below each other that a request can pass, and more.
const HOPS_MAX: usize = 64;

/// One event on the way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hop<'a> {
    /// How many ranks away from the reader's.
    pub(crate) depth: usize,
    pub(crate) rank: u32,
    /// Seconds since the reader's question, by the ranks' clocks.
    pub(crate) seconds: f64,
    pub(crate) line: &'a Line,
}

/// The way of a rank's request: of `number`, or of the last one that is answered and for which anything
/// had to be done, if there is one, else of the last. `path` leaves out requests for anything else.
/// Empty if there is none.
pub(crate) fn follow<'a>(
    flights: &'a [Flight],
    rank: u32,
    number: Option<u64>,
    path: Option<&str>,
) -> Vec<Hop<'a>> {
    let Some(flight) = flights.iter().find(|flight| flight.head.rank == rank) else {
        return Vec::new();
    };
    let fits = |line: &Line| {
        line.what == "want"
            && number.is_none_or(|number| line.number == number)
            && path.is_none_or(|path| line.path.as_deref() == Some(path))
    };
    let wants = || flight.lines.iter().enumerate().rev().filter(|(_, line)| fits(line));
    let is_answered = |index: usize, number: u64| {
        let later = &flight.lines[index..];
        later.iter().any(|line| line.what == "answer" && line.number == number)
    };
    let way = |(index, want): (usize, &Line)| {
        let mut way = Vec::new();
        let begin = flight.head.origin_unix_s + want.t;
        let end = |line: &Line| line.what == "answer" && line.number == want.number;
        pass(flights, flight, index, &end, 0, begin, &mut way);
        way
    };
    let answered = wants().filter(|&(index, line)| is_answered(index, line.number)).map(way);
    let mut told = answered.filter(|way| way.len() > 2);
    told.next().or_else(|| wants().next().map(way)).unwrap_or_default()
}

/// What a rank did about an object from `index` on until `end`.
fn pass<'a>(
    flights: &'a [Flight],
    flight: &'a Flight,
    index: usize,
    end: &dyn Fn(&Line) -> bool,
    depth: usize,
    begin: f64,
    way: &mut Vec<Hop<'a>>,
) {
    let lines = &flight.lines;
    let wanted = &lines[index];
    let same = |line: &Line| {
        (&line.path, &line.aspect, line.block) == (&wanted.path, &wanted.aspect, wanted.block)
    };
    let hop = |line: &'a Line| Hop {
        depth,
        rank: flight.head.rank,
        seconds: flight.head.origin_unix_s + line.t - begin,
        line,
    };
    way.push(hop(wanted));
    let stop = (index..lines.len()).find(|&at| end(&lines[at])).unwrap_or(lines.len());
    let is_step = |line: &Line| {
        ["ask", "pull", "copy", "restore", "source"].contains(&line.what.as_str()) && same(line)
    };
    // Somebody may have wanted it before: then what was begun for them is waited for.
    let before = (0..index).rev().find(|&at| is_step(&lines[at]));
    let own = (index + 1..stop).filter(|&at| is_step(&lines[at]));
    let steps = before.into_iter().chain(own);
    for at in steps {
        let (step, ended) = (&lines[at], ending(lines, at));
        if at < index && ended.is_none_or(|ended| ended < index) {
            continue;
        }
        way.push(hop(step));
        if step.what == "ask" && depth < HOPS_MAX {
            let from = flight.head.rank;
            let asked = step.peer.and_then(|peer| {
                let other = flights.iter().find(|other| other.head.rank == peer)?;
                Some((other, asked(other, from, step, flight.head.origin_unix_s)?))
            });
            if let Some((other, at)) = asked {
                let replied = |line: &Line| {
                    (line.what.as_str(), line.peer, line.number)
                        == ("reply", Some(from), step.number)
                };
                pass(flights, other, at, &replied, depth + 1, begin, way);
            }
        }
        if let Some(ended) = ended {
            way.push(hop(&lines[ended]));
        }
    }
    if let Some(last) = lines.get(stop) {
        way.push(hop(last));
    }
}

/// Where a step of a rank ended.
fn ending(lines: &[Line], at: usize) -> Option<usize> {
    let step = &lines[at];
    let what = match step.what.as_str() {
        "ask" => "replied",
        "source" => "sourced",
        _ => "pulled",
    };
    (at + 1..lines.len()).find(|&later| {
        let line = &lines[later];
        let same_peer = what != "replied" || line.peer == step.peer;
        line.what == what && line.number == step.number && same_peer
    })
}

/// Where a rank was asked this: of several questions of that number the one nearest in time.
fn asked(other: &Flight, from: u32, step: &Line, origin: f64) -> Option<usize> {
    let moment = origin + step.t - other.head.origin_unix_s;
    let is_it = |line: &Line| {
        line.what == "asked"
            && (line.peer, line.tree, line.number) == (Some(from), step.tree, step.number)
            && line.path == step.path
    };
    let found = other.lines.iter().enumerate().filter(|(_, line)| is_it(line));
    let away = |line: &Line| (line.t - moment).abs();
    let nearest = found.min_by(|(_, one), (_, two)| away(one).total_cmp(&away(two)));
    nearest.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::Head;

    fn flight(rank: u32, events: &[(f64, &str, Option<u32>, u64)]) -> Flight {
        let head = Head {
            rank,
            size: 3,
            host: "host".to_owned(),
            pid: 1,
            job: "job".to_owned(),
            version: "0".to_owned(),
            why: "asked for".to_owned(),
            // Each engine began at a moment of its own.
            origin_unix_s: 1000.0 - f64::from(rank),
        };
        let line = |&(t, what, peer, number): &(f64, &str, Option<u32>, u64)| Line {
            t: t + f64::from(rank),
            what: what.to_owned(),
            peer,
            tree: peer.map(|_| 0),
            number,
            path: ["want", "ask", "asked", "pull", "source"]
                .contains(&what)
                .then(|| "/data/file".to_owned()),
            aspect: None,
            block: None,
            bytes: 0,
            result: String::new(),
            errno: None,
        };
        Flight { head, lines: events.iter().map(line).collect() }
    }

    fn job() -> Vec<Flight> {
        vec![
            flight(
                0,
                &[
                    (0.002, "asked", Some(1), 7),
                    (0.003, "source", None, 4),
                    (0.005, "sourced", None, 4),
                    (0.006, "reply", Some(1), 7),
                ],
            ),
            flight(
                1,
                &[
                    (-5.0, "asked", Some(2), 9),
                    (-4.0, "reply", Some(2), 9),
                    (0.001, "asked", Some(2), 9),
                    (0.0015, "ask", Some(0), 7),
                    (0.007, "replied", Some(0), 7),
                    (0.0071, "pull", Some(0), 3),
                    (0.008, "pulled", None, 3),
                    (0.009, "reply", Some(2), 9),
                ],
            ),
            flight(
                2,
                &[
                    (0.0, "want", None, 11),
                    (0.0005, "ask", Some(1), 9),
                    (0.0101, "want", None, 12),
                    (0.0102, "replied", Some(1), 9),
                    (0.011, "answer", None, 11),
                    (0.012, "answer", None, 12),
                ],
            ),
        ]
    }

    #[test]
    fn a_request_is_followed_to_the_source_and_back() {
        let flights = job();
        let way = follow(&flights, 2, Some(11), None);
        let words: Vec<_> = way.iter().map(|hop| (hop.rank, hop.line.what.as_str())).collect();
        let expected = [
            (2, "want"),
            (2, "ask"),
            (1, "asked"),
            (1, "ask"),
            (0, "asked"),
            (0, "source"),
            (0, "sourced"),
            (0, "reply"),
            (1, "replied"),
            (1, "pull"),
            (1, "pulled"),
            (1, "reply"),
            (2, "replied"),
            (2, "answer"),
        ];
        assert_eq!(words, expected);
        assert!(way.windows(2).all(|two| two[0].seconds <= two[1].seconds), "{way:?}");
        assert!((way[13].seconds - 0.011).abs() < 1e-6);
    }

    #[test]
    fn who_comes_later_waits_for_what_was_begun_before() {
        let flights = job();
        let way = follow(&flights, 2, None, Some("/data/file"));
        assert_eq!((way[0].line.number, way.last().expect("it ends").line.number), (12, 12));
        assert!(way.iter().any(|hop| (hop.rank, hop.line.what.as_str()) == (0, "source")));
        assert!(follow(&flights, 2, None, Some("/other")).is_empty());
        assert!(follow(&flights, 7, None, None).is_empty());
    }

    #[test]
    fn what_is_written_is_read_again_also_if_its_end_is_cut_off() {
        for flight in job() {
            let text = flight.to_text();
            assert_eq!(Flight::parse(&text).expect("it was written so"), flight);
            let cut = Flight::parse(&text[..text.len() - 3]).expect("all but the last line");
            assert_eq!(cut.lines, flight.lines[..flight.lines.len() - 1]);
        }
        assert!(Flight::parse("").is_err());
        assert!(Flight::parse("{}\n").is_err());
    }
}
