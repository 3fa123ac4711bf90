//! `mmp standby`: asks the daemon to watch a device, and tells what it watches.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{self, Answer, call};
use super::standby::{Report, Request};
use crate::cli::{exit, output};
use crate::error::Error;
use crate::format::name::escape;

#[derive(Debug, Args)]
pub(in crate::cli) struct Standby {
    /// The block device, or UUID=, LABEL=, PARTUUID= or PARTLABEL= and its value; or a slot of an area, as TARGET:SLOT. Without one: tell
    /// what is watched.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    device: Option<PathBuf>,
    /// The device is guarded by this slot of an area elsewhere.
    #[arg(long, value_name = "TARGET:SLOT", value_hint = ValueHint::FilePath, requires = "device")]
    area: Option<PathBuf>,
    /// Watch it no more.
    #[arg(long, requires = "device", conflicts_with = "area")]
    end: bool,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Standbys {
    standbys: Vec<Report>,
}

#[derive(Debug, Deserialize)]
struct One {
    standby: Report,
}

pub(in crate::cli) fn run(arguments: &Standby) -> ExitCode {
    match carry_out(arguments) {
        Ok(code) => code,
        Err(error) => output::failure(&error),
    }
}

fn carry_out(arguments: &Standby) -> Result<ExitCode, Error> {
    let Some(device) = &arguments.device else {
        return asked("ListStandbys", json!({}), |answer| Ok(told(&understood(answer)?, arguments.json)));
    };
    let request = Request::of(device, arguments.area.as_deref());
    let request = request.ok_or_else(|| Error::Argument("the name of the device has to be UTF-8".into()))?;
    if arguments.end {
        let parameters = json!({ "device": request.device });
        return asked("EndStandBy", parameters, |_| Ok(ExitCode::from(exit::DONE)));
    }
    asked("StandBy", serde_json::to_value(request).unwrap_or_default(), |answer| {
        let One { standby } = understood(answer)?;
        Ok(told(&Standbys { standbys: vec![standby] }, arguments.json))
    })
}

fn asked(
    method: &str,
    parameters: Value,
    then: impl FnOnce(Value) -> Result<ExitCode, Error>,
) -> Result<ExitCode, Error> {
    match call(method, parameters)? {
        Answer::Done(answer) => then(answer),
        Answer::Refused { exit_code, text } => {
            output::complain(&text);
            Ok(ExitCode::from(exit_code))
        }
        Answer::NoDaemon => {
            let what = "no daemon listens there that this user may ask, and it is the daemon that watches: start `mmp daemon`, or \
                        `systemctl enable --now mmpd.socket`";
            Err(Error::Unsupported { path: client::socket(), what: what.to_owned() })
        }
    }
}

fn understood<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, Error> {
    let fail = |error| Error::Daemon { what: format!("what the daemon answers is not understood: {error}") };
    serde_json::from_value(value).map_err(fail)
}

fn told(all: &Standbys, json: bool) -> ExitCode {
    if json {
        return output::json(all);
    }
    if all.standbys.is_empty() {
        return output::text("nothing is watched on this host\n");
    }
    let mut text = String::new();
    for one in &all.standbys {
        let device = escape(one.device.as_bytes());
        let _ = writeln!(text, "{device}: {}", escape(one.says.as_bytes()));
        if let Some(by) = &one.last_named {
            let _ = writeln!(text, "  last named  {by}");
        }
    }
    output::text(&text)
}
