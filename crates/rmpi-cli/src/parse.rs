//! From arguments to [`Parsed`]: the pre-pass, then all that was said in ascending precedence (environment, app
//! file, command line), then `resolve`.

use crate::command::{Command, Parsed, Sources};
use crate::draft::{AppDraft, JobDraft, Layer, Target};
use crate::error::CliError;
use crate::personality::Personality;
use crate::prepass::{self, Occurrence, Segment};
use crate::row::{Behaviour, Scope};
use crate::typed::{self, Typed};
use crate::{appfile, help, resolve, tune, vars};
use rmpi_types::spec::BindTo;
use std::ffi::{OsStr, OsString};

/// Understands the arguments after `argv[0]`.
///
/// # Errors
/// Anything that cannot be used, with what to do about it; nothing has been started.
pub fn parse(args: Vec<OsString>, sources: &Sources<'_>) -> Result<Parsed, CliError> {
    let (personality, mut segments) = understand(&args, sources)?;
    if let Some(text) = help::asked(&segments, personality, sources) {
        return Ok(Parsed::Print { text });
    }
    let mut job = JobDraft::default();
    let mut base = AppDraft::default();
    if personality == Personality::Hydra {
        base.place.spec.bind_to = BindTo::None;
        base.place.spec.listed_order = true;
    }
    tune::config_files(&mut job, &mut base, sources)?;
    tune::files(&segments, &mut job, &mut base, sources)?;
    let from_file = app_file(&segments, personality, sources)?;
    let mut apps: Vec<AppDraft>;
    let mut commands: Vec<Vec<OsString>>;
    if let Some(mut lines) = from_file {
        apps = numbered(&base, lines.len());
        commands = lines.iter_mut().map(|l| std::mem::take(&mut l.command)).collect();
        job.layer = Layer::File;
        each_program(&lines, &mut job, &mut apps, sources)?;
        environment(&mut job, &mut apps, personality, sources)?;
        job.layer = Layer::Line;
        let options = &segments[0].options;
        let kept: Vec<Occurrence> = options.iter().filter(|o| o.row.name != "np").cloned().collect();
        if kept.len() < options.len() {
            job.notes.push("-np beside an app file is not used; write it in the file".into());
        }
        apply_all(&kept, &mut job, &mut apps, sources)?;
    } else {
        check_programs(&segments)?;
        apps = numbered(&base, segments.len());
        commands = segments.iter_mut().map(|s| std::mem::take(&mut s.command)).collect();
        environment(&mut job, &mut apps, personality, sources)?;
        job.layer = Layer::Line;
        each_program(&segments, &mut job, &mut apps, sources)?;
    }
    agree(&apps)?;
    let programs = commands.drain(..).zip(apps).collect();
    let command: Command = resolve::resolve(job, programs, personality, sources)?;
    Ok(Parsed::Run(Box::new(command)))
}

/// Which personality holds (our name, then `RMPIRUN_PERSONALITY`, then `--personality`), and the split by its rows.
fn understand(args: &[OsString], sources: &Sources<'_>) -> Result<(Personality, Vec<Segment>), CliError> {
    let mut personality = Personality::of_program(&sources.argv0);
    if let Some(name) = sources.env.get(OsStr::new("RMPIRUN_PERSONALITY")) {
        let chosen = Personality::of_name(&name.to_string_lossy())?;
        personality = chosen.unwrap_or(personality);
    }
    let segments = prepass::split(args, personality)?;
    let named = segments.iter().flat_map(|s| &s.options).filter(|o| o.row.name == "personality");
    let mut wanted = personality;
    for value in named.flat_map(|o| &o.values) {
        wanted = Personality::of_name(&value.to_string_lossy())?.unwrap_or(wanted);
    }
    if wanted == personality {
        return Ok((personality, segments));
    }
    Ok((wanted, prepass::split(args, wanted)?))
}

/// The programs of `--app FILE`, if one is given.
fn app_file(
    segments: &[Segment],
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<Option<Vec<Segment>>, CliError> {
    let mut all = segments.iter().flat_map(|s| &s.options).filter(|o| o.row.name == "app");
    let Some(file) = all.next_back().and_then(|o| o.values.first()) else { return Ok(None) };
    if segments.len() > 1 || !segments[0].command.is_empty() {
        return Err(CliError::new("programs are given both by an app file and on the command line"));
    }
    let bytes = resolve::read(file, "app file", sources)?;
    appfile::read(&bytes, &file.to_string_lossy(), personality).map(Some)
}

/// Every part of the command line has a program.
fn check_programs(segments: &[Segment]) -> Result<(), CliError> {
    let empty = "the program is empty (nearly always an empty shell variable)";
    for (i, segment) in segments.iter().enumerate() {
        match segment.command.first() {
            Some(program) if program.is_empty() => return Err(CliError::new(empty)),
            Some(_) => {}
            None if segments.len() == 1 => {
                return Err(CliError::new("no program given; usage: rmpirun [options] program [arguments]"));
            }
            None if i + 1 == segments.len() => return Err(CliError::new("no program after the last ':'")),
            None => return Err(CliError::new(format!("no program before ':' number {}", i + 1))),
        }
    }
    Ok(())
}

fn numbered(base: &AppDraft, n: usize) -> Vec<AppDraft> {
    (0..n).map(|index| AppDraft { index, ..base.clone() }).collect()
}

/// Applies the variables: what concerns the job once, what concerns programs to each of them.
fn environment(
    job: &mut JobDraft,
    apps: &mut [AppDraft],
    personality: Personality,
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    let Some((first, rest)) = apps.split_first_mut() else { return Ok(()) };
    let before = if rest.is_empty() { JobDraft::default() } else { job.clone() };
    vars::apply(job, first, personality, sources)?;
    rest.iter_mut().try_for_each(|app| vars::apply(&mut before.clone(), app, personality, sources))
}

/// Applies each program's options. Placement begins with the first program's, so that repeating parts of it
/// changes nothing.
fn each_program(
    segments: &[Segment],
    job: &mut JobDraft,
    apps: &mut [AppDraft],
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    for (i, segment) in segments.iter().enumerate() {
        if i > 0 {
            apps[i].place = apps[0].place.clone();
        }
        apply_all(&segment.options, job, &mut apps[i..=i], sources)?;
    }
    Ok(())
}

/// Applies options of one place: those of the job once, those of programs to each of `apps`.
fn apply_all(
    options: &[Occurrence],
    job: &mut JobDraft,
    apps: &mut [AppDraft],
    sources: &Sources<'_>,
) -> Result<(), CliError> {
    for (option, values) in options.iter().zip(typed::check(options)?) {
        let times = if option.row.scope == Scope::Job { 1 } else { apps.len() };
        for app in apps.iter_mut().take(times) {
            let mut target = Target { job, app, sources, spelled: &option.spelled };
            apply(option, values.clone(), &mut target)?;
        }
    }
    Ok(())
}

/// Does what one option of the table does.
pub(crate) fn apply(
    option: &Occurrence,
    values: Vec<Typed>,
    target: &mut Target<'_>,
) -> Result<(), CliError> {
    let spelled = &option.spelled;
    match option.row.behaviour {
        Behaviour::Active => {
            let Some(act) = option.row.act else { return Ok(()) };
            target.job.placement_said |= option.row.scope == Scope::Placement;
            typed::call(act, target, values).map_err(|e| CliError::new(format!("{spelled}: {e}")))
        }
        Behaviour::Ignored => Ok(()),
        Behaviour::Noted(text) => {
            target.note(format!("{spelled}: {text}"));
            Ok(())
        }
        Behaviour::Refused(text) => {
            let colon = if text.starts_with("is ") || text.starts_with("means ") { "" } else { ":" };
            Err(CliError::new(format!("{spelled}{colon} {text}")))
        }
    }
}

/// Placement is a matter of the whole job: later programs must not change it.
fn agree(apps: &[AppDraft]) -> Result<(), CliError> {
    match apps.iter().find(|a| a.place != apps[0].place) {
        None => Ok(()),
        Some(other) => Err(CliError::new(format!(
            "program {} asks for another mapping or binding than the first; they hold for the whole job: \
             give them once, before the first program",
            other.index + 1
        ))),
    }
}
