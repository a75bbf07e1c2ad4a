//! Which titles an edge holds, as its content digest tells. What was answered is remembered: the same titles are asked for again and again.

use std::collections::HashMap;

use parking_lot::Mutex;
use wire::{content::Digest, placement::Key};

use super::files::Files;
use crate::steering::decide::Content;

/// Answers that are remembered; with more, all are forgotten.
const ANSWERS_MAX: usize = 20_000;
/// An edge holds a title if it has this share of one of its video renditions: whoever plays it there is served from there, mostly.
const HELD_SHARE: f64 = 0.5;

/// What one edge said that it holds.
#[derive(Debug)]
pub(crate) struct Contents {
    digest: Digest,
    answers: Mutex<HashMap<Key, Content>>,
}

impl Contents {
    pub(super) fn new(digest: Digest) -> Self {
        Self { digest, answers: Mutex::default() }
    }

    /// How many slices there are.
    pub(crate) fn slices(&self) -> u64 {
        self.digest.slices
    }

    /// Whether the title is there, whose segments are `files`.
    pub(crate) fn of(&self, title: Key, files: &Files) -> Content {
        if let Some(answer) = self.answers.lock().get(&title) {
            return *answer;
        }
        let answer = self.look_up(files);
        let mut answers = self.answers.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(title, answer);
        answer
    }

    fn look_up(&self, files: &Files) -> Content {
        // Of each segment its first slice: that it has one is all that is known of its length.
        let shares = files.renditions().filter_map(|rendition| self.digest.share(rendition.spread().map(|path| (path, 1))));
        match shares.reduce(f64::max) {
            Some(share) if share >= HELD_SHARE => Content::Holds,
            Some(_) => Content::Lacks,
            None => Content::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::content::{Sample, slice_hash};

    use super::{super::files::Numbered, *};

    /// A title with so many segments in each of two renditions.
    fn files(title: &str, segments: u64) -> Files {
        let rendition = |name: &str| {
            let path = |number: u64| format!("{title}/{name}/{number:05}.m4s");
            Numbered::of(&path(1), &path(segments), segments).unwrap()
        };
        Files::new(vec![rendition("v1080"), rendition("v360")])
    }

    fn contents(held: impl IntoIterator<Item = String>) -> Contents {
        let mut sample = Sample::default();
        held.into_iter().for_each(|path| sample.add(slice_hash(3, &path, 0)));
        Contents::new(sample.digest(3, 1 << 20))
    }

    fn segments(title: &str, rendition: &str, numbers: std::ops::Range<u64>) -> Vec<String> {
        numbers.map(|number| format!("{title}/{rendition}/{number:05}.m4s")).collect()
    }

    #[test]
    fn a_title_is_held_where_one_of_its_renditions_is() {
        let contents =
            contents([segments("/a", "v360", 1..1001), segments("/b", "v360", 1..200), segments("/b", "v1080", 1..200)].concat());
        let of = |title: &str| contents.of(Key::of(title.as_bytes()), &files(title, 1000));
        assert_eq!(of("/a"), Content::Holds);
        assert_eq!(of("/b"), Content::Lacks, "only the beginning of it is there");
        assert_eq!(of("/c"), Content::Lacks);
        assert_eq!(contents.of(Key::of(b"/d"), &Files::new(Vec::new())), Content::Unknown);
        assert_eq!(contents.slices(), 1398);
    }

    #[test]
    fn answers_are_remembered_and_bounded() {
        let contents = contents(segments("/a", "v360", 1..11));
        let title = Key::of(b"/a");
        assert_eq!(contents.of(title, &files("/a", 10)), Content::Holds);
        assert_eq!(contents.of(title, &files("/elsewhere", 10)), Content::Holds, "nobody looks again");
        for other in 0..=ANSWERS_MAX {
            contents.of(Key::of(&other.to_le_bytes()), &Files::new(Vec::new()));
        }
        assert!(contents.answers.lock().len() <= ANSWERS_MAX);
    }
}
