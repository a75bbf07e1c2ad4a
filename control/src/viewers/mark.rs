//! Marks: what a viewer said of a title. Pure; of two the later one wins, so marks are joined like views are.

use wire::title::TitleId;

/// What a viewer thinks of a title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Opinion {
    /// Nothing, or nothing any more.
    None,
    Like,
    Dislike,
}

impl Opinion {
    /// As the journal and the database have it.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// Back from [`Self::code`].
    pub(crate) fn of_code(code: u8) -> Option<Self> {
        [Self::None, Self::Like, Self::Dislike].into_iter().find(|opinion| opinion.code() == code)
    }
}

/// All that a viewer said of one title. A time of 0 is never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) title: TitleId,
    pub(crate) opinion: Opinion,
    /// When she said so.
    pub(crate) opinion_ms: u64,
    /// When she took it off the list of what she could go on with. Watching it later brings it back.
    pub(crate) hidden_ms: u64,
}

impl Mark {
    /// Nothing was said yet.
    pub(crate) fn none(title: TitleId) -> Self {
        Self { title, opinion: Opinion::None, opinion_ms: 0, hidden_ms: 0 }
    }

    /// Adds what was said elsewhere.
    pub(crate) fn join(&mut self, other: &Self) {
        (self.opinion_ms, self.opinion) = (self.opinion_ms, self.opinion).max((other.opinion_ms, other.opinion));
        self.hidden_ms = self.hidden_ms.max(other.hidden_ms);
    }
}

/// Adds a mark to `marks`, which has one for each title. True if it was joined to one that was there.
pub(crate) fn fold(marks: &mut Vec<Mark>, mark: Mark) -> bool {
    match marks.iter_mut().find(|there| there.title == mark.title) {
        Some(there) => {
            there.join(&mark);
            true
        }
        None => {
            marks.push(mark);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::viewers::view::tests::title;

    #[test]
    fn the_later_word_counts_in_whatever_order_it_comes() {
        let like = Mark { opinion: Opinion::Like, opinion_ms: 10, ..Mark::none(title("a")) };
        let undone = Mark { opinion: Opinion::None, opinion_ms: 20, ..Mark::none(title("a")) };
        let hidden = Mark { hidden_ms: 15, ..Mark::none(title("a")) };
        let expected = Mark { hidden_ms: 15, ..undone.clone() };
        for order in [[&like, &undone, &hidden], [&hidden, &undone, &like], [&undone, &like, &hidden]] {
            let mut marks = vec![Mark::none(title("b"))];
            order.into_iter().for_each(|mark| {
                fold(&mut marks, mark.clone());
            });
            assert_eq!(marks[1], expected);
        }
    }

    #[test]
    fn opinions_come_back_from_their_codes() {
        for opinion in [Opinion::None, Opinion::Like, Opinion::Dislike] {
            assert_eq!(Opinion::of_code(opinion.code()), Some(opinion));
        }
        assert_eq!(Opinion::of_code(3), None);
    }
}
