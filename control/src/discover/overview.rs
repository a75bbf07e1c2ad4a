//! The newest titles of the catalogue as they were a while ago, and what they are alike by. Pure.
//!
//! Two titles are alike by their casts and genres: the cosine of the two lists of terms, each weighing by how few titles it is in (the inverse
//! document frequency of Spärck Jones, 1972), so that one shared lead says more than five extras who are in everything, or a genre that half of all have.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use wire::title::TitleId;

use crate::catalogue::Summary;

/// All of it.
#[derive(Default)]
pub(crate) struct Overview {
    /// Newest first.
    titles: Vec<Arc<Summary>>,
    places: HashMap<TitleId, usize>,
    /// The places of the titles that have each term.
    terms: HashMap<String, Vec<u32>>,
    /// Whether these were all there were.
    is_whole: bool,
}

impl Overview {
    /// So many titles are looked over; what is older is found by search. At about 1 KB each, 20 MB.
    pub(crate) const TITLES_MAX: usize = 20_000;

    /// Of titles that stand newest first.
    pub(crate) fn of(mut titles: Vec<Summary>) -> Self {
        let is_whole = titles.len() < Self::TITLES_MAX;
        titles.truncate(Self::TITLES_MAX);
        let mut terms = HashMap::<String, Vec<u32>>::new();
        for (place, title) in titles.iter().enumerate() {
            terms_of(title).into_iter().for_each(|term| terms.entry(term).or_default().push(place as u32));
        }
        let titles: Vec<_> = titles.into_iter().map(Arc::new).collect();
        let places = titles.iter().enumerate().map(|(place, title)| (title.id.clone(), place)).collect();
        Self { titles, places, terms, is_whole }
    }

    /// Newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Arc<Summary>> {
        self.titles.iter()
    }

    pub(crate) fn find(&self, id: &TitleId) -> Option<&Arc<Summary>> {
        self.places.get(id).map(|place| &self.titles[*place])
    }

    /// Whether a title may be catalogued: it is here, or not all of them are. So that what strangers invent is not looked up.
    pub(crate) fn may_have(&self, id: &str) -> bool {
        !self.is_whole || id.parse().is_ok_and(|id| self.find(&id).is_some())
    }

    /// The most popular first, then the newest.
    pub(crate) fn by_popularity(&self, popularity: &HashMap<TitleId, f32>) -> Vec<&Arc<Summary>> {
        let of = |title: &Summary| popularity.get(&title.id).copied().unwrap_or(0.0);
        let mut titles: Vec<_> = self.titles.iter().collect();
        // Stable, so that equals stay newest first.
        titles.sort_by(|a, b| of(b).total_cmp(&of(a)));
        titles
    }

    /// Titles with the same people in them and of the same genres, the most alike first.
    pub(crate) fn similar(&self, id: &TitleId, limit: usize) -> Vec<TitleId> {
        let Some(this) = self.find(id) else { return Vec::new() };
        let having = |term: &str| self.terms.get(term).map_or(&[][..], |places| places);
        let worth = |term: &str| (self.titles.len() as f64 / having(term).len().max(1) as f64).ln();
        let norm = |title: &Summary| terms_of(title).iter().map(|term| worth(term).powi(2)).sum::<f64>().sqrt();
        let mut shared = HashMap::<u32, f64>::new();
        for term in terms_of(this) {
            for place in having(&term) {
                *shared.entry(*place).or_default() += worth(&term).powi(2);
            }
        }
        let of_this = norm(this);
        let alike = |(place, shared): (u32, f64)| {
            let other = &self.titles[place as usize];
            let likeness = shared / (of_this * norm(other));
            (other.id != *id && likeness > 0.0).then_some((likeness, place))
        };
        let mut titles: Vec<_> = shared.into_iter().filter_map(alike).collect();
        titles.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        titles.into_iter().take(limit).map(|(_, place)| self.titles[place as usize].id.clone()).collect()
    }
}

/// What a title is alike to others by, each once: who is in it, whatever the case and spaces of a name, and its genres, which are no names.
fn terms_of(title: &Summary) -> BTreeSet<String> {
    let term = |name: &String| name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let genres = title.genres.iter().map(|genre| format!("genre:{}", term(genre)));
    title.cast.iter().map(term).chain(genres).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title(id: &str, cast: &[&str]) -> Summary {
        let mut title = crate::catalogue::tests::summary(id);
        title.cast = cast.iter().map(|name| (*name).to_owned()).collect();
        title
    }

    fn names(titles: impl IntoIterator<Item = TitleId>) -> Vec<String> {
        titles.into_iter().map(|id| id.to_string()).collect()
    }

    #[test]
    fn titles_with_the_same_rare_people_are_alike_and_extras_say_little() {
        let overview = Overview::of(vec![
            title("a", &["Lead One", "Extra"]),
            title("b", &["lead  one", "Extra"]),
            title("c", &["Lead Two", "Extra"]),
            title("d", &["Lead One", "Lead Two", "Extra", "Extra"]),
            title("e", &["Nobody Else"]),
            title("f", &[]),
        ]);
        let similar = |id: &str| names(overview.similar(&id.parse().unwrap(), 10));
        assert_eq!(similar("a"), ["b", "d", "c"]);
        assert_eq!(similar("c"), ["d", "a", "b"]);
        assert!(similar("e").is_empty() && similar("f").is_empty() && similar("unknown").is_empty());
        assert_eq!(names(overview.similar(&"a".parse().unwrap(), 1)), ["b"]);
    }

    #[test]
    fn titles_of_one_genre_are_alike_and_a_name_is_no_genre() {
        let of = |id: &str, cast: &[&str], genre: &str| Summary { genres: vec![genre.to_owned()], ..title(id, cast) };
        let overview = Overview::of(vec![
            of("a", &["Ada"], "Western"),
            of("b", &["Bo"], "western"),
            of("c", &["Ada"], "Comedy"),
            of("d", &["Western"], "Drama"),
        ]);
        assert_eq!(names(overview.similar(&"a".parse().unwrap(), 10)), ["b", "c"]);
        assert!(overview.similar(&"d".parse().unwrap(), 10).is_empty());
    }

    #[test]
    fn what_is_popular_stands_first_and_then_what_is_new() {
        let overview = Overview::of(["a", "b", "c"].iter().map(|id| title(id, &[])).collect());
        let popularity = HashMap::from([("c".parse().unwrap(), 0.5), ("gone".parse().unwrap(), 1.0)]);
        let of = |popularity| names(overview.by_popularity(popularity).into_iter().map(|title| title.id.clone()));
        assert_eq!(of(&popularity), ["c", "a", "b"]);
        assert_eq!(of(&HashMap::new()), ["a", "b", "c"]);
        assert_eq!(names(overview.newest().map(|title| title.id.clone())), ["a", "b", "c"]);
        assert!(Overview::default().by_popularity(&popularity).is_empty());
        assert!(overview.may_have("b") && !overview.may_have("invented") && Overview::default().may_have("b"));
    }
}
