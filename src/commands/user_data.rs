//! `larder user-data`: what control keeps of a user, to be handed to her or forgotten.

use serde_json::{Value, json};

use super::{confirm, print_json};
use crate::{
    api::{Api, escaped},
    cli::user_data::{UserDataArgs, UserDataCommand, UserDataRemoveArgs, UserDataShowArgs},
    table::{Table, clock, plain, words},
};

pub(super) async fn run(args: UserDataArgs) -> anyhow::Result<()> {
    match args.command {
        UserDataCommand::Show(args) => show(&args).await,
        UserDataCommand::Remove(args) => remove(&args).await,
    }
}

async fn show(args: &UserDataShowArgs) -> anyhow::Result<()> {
    let data: Value = Api::of(&args.operator)?.get(&path(&args.user)).await?;
    if args.json {
        return print_json(&data);
    }
    let lines = told(&data);
    say!("{}{}", plain(&args.user), if lines.is_empty() { ": nothing is kept of this user" } else { "" });
    for line in lines {
        say!("{line}");
    }
    Ok(())
}

/// The id as one segment, though it has a "/" before a profile and "%" where it was escaped itself.
fn path(user: &str) -> String {
    format!("/users/{}", escaped(user))
}

fn told(data: &Value) -> Vec<String> {
    let entries = |name: &str| data[name].as_array().into_iter().flatten();
    let mut views = Table::new(["WATCHED", "BEGUN", "LAST SEEN", "AT", "FURTHEST", "ON"]);
    for view in entries("views") {
        let (position, furthest) = (clock(&view["positionMs"]), clock(&view["furthestMs"]));
        let (begun, last) = (words(&view["begunAt"]), words(&view["lastSeenAt"]));
        views.row([words(&view["videoId"]), begun, last, position, furthest, words(&view["device"])]);
    }
    let mut opinions = Table::new(["OPINION OF", "IS", "SINCE"]);
    for opinion in entries("opinions") {
        opinions.row([words(&opinion["videoId"]), words(&opinion["opinion"]), words(&opinion["at"])]);
    }
    let mut hidden = Table::new(["HID", "AT"]);
    for title in entries("hidden") {
        hidden.row([words(&title["videoId"]), words(&title["at"])]);
    }
    [views.lines(), opinions.lines(), hidden.lines()].concat()
}

async fn remove(args: &UserDataRemoveArgs) -> anyhow::Result<()> {
    let user = plain(&args.user);
    let api = Api::of(&args.operator)?;
    confirm(args.yes, "forgetting a user", || format!("What {user} watched and likes will be gone for good. Forget this user?"))?;
    api.delete(&path(&args.user)).await?;
    if args.json {
        return print_json(&json!({ "removed": args.user }));
    }
    say!("nothing is kept of {user} any more");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_told_by_kind_and_what_an_older_control_does_not_say_is_left_out() {
        let data = json!({
            "user": "alice", "views": [
                { "videoId": "film-17", "begunAt": "2026-11-21T19:00:00Z", "lastSeenAt": "2026-11-21T20:00:00Z", "positionMs": 3_600_000, "device": null },
            ],
            "opinions": [{ "videoId": "film-3", "opinion": "LIKE", "at": "2026-11-20T08:00:00Z" }],
        });
        let expected = [
            "WATCHED  BEGUN                 LAST SEEN             AT",
            "film-17  2026-11-21T19:00:00Z  2026-11-21T20:00:00Z  1:00:00",
            "OPINION OF  IS    SINCE",
            "film-3      LIKE  2026-11-20T08:00:00Z",
        ];
        assert_eq!(told(&data), expected);
        assert_eq!(told(&json!({ "user": "bob", "views": [], "opinions": [], "hidden": [] })), Vec::<String>::new());
    }
}
