//! `larder check`: the effective configuration, or every error in it.

use serde_json::json;
use wire::config::Effective;

use super::print_json;
use crate::{
    cli::CheckArgs,
    config::{ConfigFile, Flawed, Role},
};

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let result = check(args);
    if !args.json {
        let (role, effective) = result?;
        return print(role, &effective);
    }
    match &result {
        Ok((role, effective)) => print_json(&json!({ "ok": true, "role": role.to_string(), "settings": effective }))?,
        Err(error) => {
            let problems = error.downcast_ref::<Flawed>().map(|flawed| &flawed.problems);
            print_json(&json!({ "ok": false, "file": args.file, "problems": problems, "error": error.to_string() }))?;
        }
    }
    result.map(drop)
}

fn check(args: &CheckArgs) -> anyhow::Result<(Role, Effective)> {
    let file = ConfigFile::open(&args.file, args.role)?;
    let role = file.role;
    let effective = match role {
        Role::Edge => file.read(edge::config::Config::read)?.1,
        Role::Origin => file.read(origin::config::Config::read)?.1,
        Role::Control => file.read(control::config::Config::read)?.1,
    };
    Ok((role, effective))
}

fn print(role: Role, effective: &Effective) -> anyhow::Result<()> {
    say!("a good configuration of the role {role}:");
    let width = effective.settings.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
    for setting in &effective.settings {
        let value = setting.value.as_deref().unwrap_or("(none)");
        let origin = if setting.is_default { "  (default)" } else { "" };
        say!("  {:width$}  {value}{origin}", setting.key);
    }
    Ok(())
}
