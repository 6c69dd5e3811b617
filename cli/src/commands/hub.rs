//! `pull`, `ls`, `rm`: models by their names, in the cache that Hub tools share.

use std::time::SystemTime;

use candle_engine::hub::{Hub, HubConfig, RepoId};
use candle_engine_models::Source;
use serde::Serialize;
use serde_json::json;

use crate::args::{Ls, Pull, Rm};
use crate::exit::Outcome;
use crate::output::{self, Ui};
use crate::progress::{Progress, Unit};

/// Where a model of that name lies, fetched if it is not in the cache.
pub fn resolve(name: &str, ui: &Ui) -> Outcome<Source> {
    let hub = hub();
    let mut bars = Bars::new(&hub, ui);
    let path = hub.model(&RepoId::parse(name)?, &mut |p| bars.show(&p))?;
    drop(bars);
    Ok(Source::parse(&path.to_string_lossy())?)
}

pub fn pull(args: &Pull, ui: &Ui) -> Outcome {
    let hub = hub();
    let mut pulled = Vec::new();
    for name in &args.models {
        let repo = RepoId::parse(name)?;
        let mut bars = Bars::new(&hub, ui);
        let snapshot = hub.pull(&repo, &mut |p| bars.show(&p))?;
        drop(bars);
        let path = snapshot.model()?;
        if args.json {
            pulled.push(json!({"model": repo.to_string(), "commit": snapshot.commit, "path": path}));
        } else {
            output::line(path.display())?;
        }
    }
    if args.json {
        output::json(&pulled)?;
    }
    Ok(())
}

pub fn ls(args: &Ls) -> Outcome {
    #[derive(Serialize)]
    struct Row {
        model: String,
        revisions: Vec<String>,
        commits: Vec<String>,
        files: usize,
        bytes: u64,
        unfinished_bytes: u64,
        modified_unix: Option<u64>,
    }
    let unix = |at: SystemTime| Some(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs());
    let models: Vec<_> = hub()
        .list()?
        .into_iter()
        .map(|m| Row {
            model: m.repo.to_string(),
            revisions: m.commits.values().flatten().cloned().collect(),
            commits: m.commits.into_keys().collect(),
            files: m.files,
            bytes: m.bytes,
            unfinished_bytes: m.unfinished,
            modified_unix: m.modified.and_then(unix),
        })
        .collect();
    if args.json {
        return output::json(&models);
    }
    let now = unix(SystemTime::now()).unwrap_or_default();
    let rows: Vec<_> = models
        .into_iter()
        .map(|m| {
            let age = m.modified_unix.map_or_else(String::new, |at| ago(now.saturating_sub(at)));
            let note = if m.unfinished_bytes > 0 { "unfinished" } else { "" };
            [m.model, output::bytes(m.bytes), age, m.revisions.join(", "), note.to_owned()]
        })
        .collect();
    output::table(["model", "size", "modified", "revisions", ""], &rows)
}

pub fn rm(args: &Rm, ui: &Ui) -> Outcome {
    let hub = hub();
    for name in &args.models {
        let freed = hub.remove(&RepoId::parse(name)?)?;
        ui.note(format_args!("removed {name}: {}", output::bytes(freed)));
    }
    Ok(())
}

fn hub() -> Hub {
    Hub::new(HubConfig::from_env())
}

fn ago(seconds: u64) -> String {
    const UNITS: &[(u64, &str)] = &[(86_400, "day"), (3_600, "hour"), (60, "minute")];
    match UNITS.iter().find(|(size, _)| seconds >= *size) {
        Some((size, unit)) => {
            let n = seconds / size;
            format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" })
        }
        None => "just now".into(),
    }
}

/// A bar per file.
struct Bars {
    ui: Ui,
    wanted: bool,
    current: Option<(usize, Progress)>,
    waits: bool,
}

impl Bars {
    fn new(hub: &Hub, ui: &Ui) -> Self {
        Self { ui: *ui, wanted: hub.config().progress, current: None, waits: false }
    }

    fn show(&mut self, p: &candle_engine::hub::Progress) {
        if p.waiting && !std::mem::replace(&mut self.waits, p.waiting) {
            self.ui.note(format_args!("{}: another process is fetching it", p.file));
        }
        if !self.wanted {
            return;
        }
        if self.current.as_ref().is_none_or(|(index, _)| *index != p.index) {
            let name = p.file.rsplit('/').next().unwrap_or(p.file);
            let label = format!("{}/{} {name}", p.index + 1, p.files);
            let bar = Progress::new(&self.ui, label, Unit::Bytes, p.size.unwrap_or(0));
            self.current = Some((p.index, bar));
        }
        if let Some((_, bar)) = &mut self.current {
            bar.set(p.done);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ages() {
        assert_eq!(super::ago(5), "just now");
        assert_eq!(super::ago(3_600), "1 hour ago");
        assert_eq!(super::ago(200_000), "2 days ago");
    }
}
