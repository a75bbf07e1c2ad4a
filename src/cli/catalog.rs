//! `larder catalog`, as it is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use http::HeaderValue;
use wire::title::{TitleId, TitleKind};

use super::{language, operator::OperatorArgs, year};

pub(super) const CATALOG: &str = "\
Examples:
  larder catalog list --search \"great escape\"
  larder catalog show film-17
  larder catalog update film-17 --year 1963 --genre War
  larder catalog remove film-17 --yes

They ask control at http://127.0.0.1:8080 with the secret in /etc/larder/secrets/operator, unless --control and --token-file
or LARDER_CONTROL and LARDER_TOKEN_FILE say otherwise. Titles come into the catalogue by larder ingest.";

#[derive(Debug, Args)]
pub(crate) struct CatalogArgs {
    #[command(subcommand)]
    pub(crate) command: CatalogCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// List titles, the newest first, or those that a search and filters find; or count them
    #[command(after_help = LIST)]
    List(CatalogListArgs),
    /// Show a title and its renditions
    #[command(after_help = SHOW)]
    Show(CatalogShowArgs),
    /// Catalogue a title that an origin has already
    #[command(after_help = PUBLISH)]
    Publish(CatalogPublishArgs),
    /// Change what is said of a title: its words, year, kind and the like
    #[command(after_help = UPDATE)]
    Update(CatalogUpdateArgs),
    /// Take a title out of the catalogue
    #[command(after_help = REMOVE)]
    Remove(CatalogRemoveArgs),
}

const LIST: &str = "\
Examples:
  larder catalog list
  larder catalog list --search \"great escape\" --limit 5
  larder catalog list --genre war,drama --year 1960-1969 --language en --kind film --sort title
  larder catalog list --all --json | jq -r .id
  larder catalog list --year 1990-1999 --facets
  larder catalog list --facets --json | jq '.facets.genres[]'

Of each filter that is given a title must have one of the values. With --json it prints a line for each title. When there are
more titles than --limit, standard error says so.

With --facets it prints figures and no titles: how many there are, and how many of each genre, year, language and kind. Each
filter counts as if it were not set itself, so one sees what there would be instead. With --json that is one object: total,
facets and complete, as the API has them; complete is false when control's search could not look at all titles.";

#[derive(Debug, Args)]
pub(crate) struct CatalogListArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// Only titles with these words, at most 200 characters
    #[arg(long, value_name = "WORDS")]
    pub(crate) search: Option<String>,
    /// Only titles of these genres, whatever their case and accents; may be given again
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) genre: Vec<String>,
    /// Only titles that came out in these years or ranges of years; may be given again
    #[arg(long, value_name = "YEAR,A-B,…", value_delimiter = ',')]
    pub(crate) year: Vec<String>,
    /// Only titles whose original is in these languages, en also being en-GB; may be given again
    #[arg(long, value_name = "TAG,…", value_delimiter = ',')]
    pub(crate) language: Vec<String>,
    /// Only films, episodes, shorts, specials, trailers or clips; may be given again
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    pub(crate) kind: Vec<TitleKind>,
    /// What comes first [default: with --search relevance, without newest]
    #[arg(long, value_parser = ["relevance", "popularity", "newest", "title"])]
    pub(crate) sort: Option<String>,
    /// Count the titles by genre, year, language and kind instead of listing them
    #[arg(long, conflicts_with_all = ["limit", "all", "sort"])]
    pub(crate) facets: bool,
    /// How many titles
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Print a JSON object on a line for each title
    #[arg(long)]
    pub(crate) json: bool,
}

const SHOW: &str = "\
Examples:
  larder catalog show film-17
  larder catalog show film-17 --json | jq '.renditions[].codecs'

The etag is another whenever the title is: --if-match of larder catalog update takes it. With --json it stands in the object,
beside what the API says of the title.";

#[derive(Debug, Args)]
pub(crate) struct CatalogShowArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The title's id
    #[arg(value_name = "ID")]
    pub(crate) id: TitleId,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const PUBLISH: &str = "\
Examples:
  larder catalog publish /var/lib/larder/origin/titles/2c26…/.title.json
  larder catalog publish film-17.json --replace
  larder catalog publish film-17-sing-along.json --allow-duplicate

The file is a title as the origin published it: .title.json in the title's folder. The title's id stands in it. One that is
catalogued under this id already is left as it is, unless --replace is given; then it keeps its place in lists. A film that is
catalogued under another id is refused, unless --allow-duplicate is given; that need not be said again when it is replaced.";

#[derive(Debug, Args)]
pub(crate) struct CatalogPublishArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The title (JSON), at most 32 MiB
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Put it in the place of the title that has this id
    #[arg(long)]
    pub(crate) replace: bool,
    /// Catalogue it although the same film is catalogued under another id
    #[arg(long)]
    pub(crate) allow_duplicate: bool,
    /// Print one JSON object: the title as it is catalogued, and its etag
    #[arg(long)]
    pub(crate) json: bool,
}

const UPDATE: &str = "\
Examples:
  larder catalog update film-17 --year 1963 --genre War --genre Adventure
  larder catalog update film-17 --description \"Three tunnels, one moonless night.\" --clear rating
  larder catalog update film-17 --patch words.json
  echo '{\"cast\": [\"Ada Example\"], \"rating\": null}' | larder catalog update film-17 --patch -
  larder catalog update film-17 --title \"The Great Escape\" --if-match \"$(larder catalog show film-17 --json | jq -r .etag)\"

What is not named stays as it is; --cast and --genre take the place of all names that were there. A patch is a JSON merge
patch (RFC 7396) with any of title, description, cast, rating, genres, year, language and kind; null takes one away, as --clear
does. Where one of them cannot be so, nothing is changed. The title's files stay as they are. It prints the title as it is now,
like larder catalog show. Publishing a title anew (larder catalog publish --replace) says everything anew.";

#[derive(Debug, Args)]
pub(crate) struct CatalogUpdateArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The title's id
    #[arg(value_name = "ID")]
    pub(crate) id: TitleId,
    /// What viewers read
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// What it is about
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Who is in it; once for each
    #[arg(long, value_name = "NAME")]
    pub(crate) cast: Vec<String>,
    /// The age rating, such as PG-13
    #[arg(long)]
    pub(crate) rating: Option<String>,
    /// A genre, as the service names it; once for each
    #[arg(long, value_name = "NAME")]
    pub(crate) genre: Vec<String>,
    /// When it came out
    #[arg(long, value_parser = year)]
    pub(crate) year: Option<u16>,
    /// The language of the original, such as en or pt-BR (BCP 47)
    #[arg(long, value_name = "TAG", value_parser = language)]
    pub(crate) language: Option<String>,
    /// What it is: film, episode, short, special, trailer or clip
    #[arg(long)]
    pub(crate) kind: Option<TitleKind>,
    /// What is not to be said of it any more; may be given again
    #[arg(long, value_name = "FIELD", value_enum)]
    pub(crate) clear: Vec<Field>,
    /// A merge patch (JSON) that says what to change, at most 64 KiB; - reads it from standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["title", "description", "cast", "rating", "genre", "year", "language", "kind", "clear"]
    )]
    pub(crate) patch: Option<PathBuf>,
    /// Only if the title is still the one that had this etag; * is any
    #[arg(long, value_name = "ETAG", value_parser = etag)]
    pub(crate) if_match: Option<HeaderValue>,
    /// Print one JSON object: the title as it is now, and its etag
    #[arg(long)]
    pub(crate) json: bool,
}

/// What need not be said of a title.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Field {
    Description,
    Cast,
    Rating,
    #[value(alias = "genres")]
    Genre,
    Year,
    Language,
    Kind,
}

impl Field {
    /// Its member in a merge patch.
    pub(crate) const fn member(self) -> &'static str {
        match self {
            Self::Description => "description",
            Self::Cast => "cast",
            Self::Rating => "rating",
            Self::Genre => "genres",
            Self::Year => "year",
            Self::Language => "language",
            Self::Kind => "kind",
        }
    }
}

/// What `If-Match` takes (RFC 9110 §13.1.1). An entity tag has quotes, which a shell may have taken away.
fn etag(text: &str) -> Result<HeaderValue, String> {
    let is_bare = text != "*" && !text.contains('"');
    let value = if is_bare { format!("\"{text}\"") } else { text.to_owned() };
    HeaderValue::try_from(value).map_err(|_| "expected an etag as larder catalog show prints it".into())
}

const REMOVE: &str = "\
Example:
  larder catalog remove film-17 --yes

Its files stay at the origin, and what edges hold of it stays there until it is purged (larder cache purge). URLs that were
signed stay good until they expire. It asks first, unless --yes is given.";

#[derive(Debug, Args)]
pub(crate) struct CatalogRemoveArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The title's id
    #[arg(value_name = "ID")]
    pub(crate) id: TitleId,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
