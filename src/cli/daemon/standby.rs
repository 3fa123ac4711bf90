//! Devices that are watched for a later mount.
//!
//! Protects: a mount counts only what was watched of the very block that it claims; a device that is found anew under the same name
//! is another one. Does not outlive the daemon: a watch that was interrupted counts for nothing, and is begun anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::request;
use crate::cli::render;
use crate::driver::Place;
use crate::driver::standby::{View, Watched};
use crate::error::Error;
use crate::io::DeviceKind;
use crate::keeper::mounts::Task;
use crate::protocol::{Credit, Sequence};
use crate::sys::tags;

/// So many devices are watched at once.
const STANDBYS_AT_MOST: usize = 10_000;

/// The parameters of `StandBy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Request {
    pub(in crate::cli) device: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) area: Option<String>,
}

impl Request {
    /// What the command line asks for; none if a name in it is not UTF-8.
    pub(in crate::cli) fn of(device: &Path, area: Option<&Path>) -> Option<Self> {
        let area = match area {
            None => None,
            Some(area) => Some(request::absolute(area)?),
        };
        Some(Request { device: request::absolute(device)?, area })
    }
}

/// `Standby` of the interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Report {
    pub(in crate::cli) device: String,
    pub(in crate::cli) area: Option<String>,
    pub(in crate::cli) state: String,
    pub(in crate::cli) quiet_ms: u64,
    pub(in crate::cli) last_named: Option<String>,
    pub(in crate::cli) says: String,
}

/// All of them, by the name they were asked for with.
#[derive(Debug, Default)]
pub(super) struct Standbys(Mutex<BTreeMap<String, Standby>>);

#[derive(Debug)]
struct Standby {
    area: Option<String>,
    /// The block device or file that holds the block, and where in it.
    block: (DeviceKind, u64),
    watched: Watched,
}

impl Standbys {
    /// Begins to watch; once more changes nothing.
    pub(super) fn begin(&self, request: &Request) -> Result<Report, Error> {
        let device = tags::resolve(Path::new(&request.device))?;
        let place = Place::find_by(&device, request.area.as_deref().map(Path::new), None)?;
        let block = block_of(&place);
        if !self.has(request, block) {
            let watched = Watched::begin(place)?;
            watched.wait_for_a_look(); // without the lock: the device may hang
            let mut all = self.lock();
            if all.len() >= STANDBYS_AT_MOST {
                let what = format!("{STANDBYS_AT_MOST} devices are watched already");
                return Err(Error::Unsupported { path: PathBuf::from(&request.device), what });
            }
            all.insert(request.device.clone(), Standby { area: request.area.clone(), block, watched });
        }
        let all = self.lock();
        let standby = all.get(&request.device).ok_or(Error::Interrupted)?; // ended again meanwhile
        Ok(report(&request.device, standby))
    }

    fn has(&self, request: &Request, block: (DeviceKind, u64)) -> bool {
        let all = self.lock();
        all.get(&request.device).is_some_and(|known| known.block == block && known.area == request.area)
    }

    /// Ends it. False if it was not watched.
    pub(super) fn end(&self, device: &str) -> bool {
        self.lock().remove(device).is_some()
    }

    /// What is watched.
    pub(super) fn list(&self) -> Vec<Report> {
        self.lock().iter().map(|(device, standby)| report(device, standby)).collect()
    }

    /// Nothing is watched.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What was watched of the block that a task claims.
    pub(super) fn credit(&self, task: &Task) -> Option<Credit> {
        if self.is_empty() {
            return None; // the device need not be read
        }
        let block = block_of_task(task)?;
        self.lock().values().find(|standby| standby.block == block)?.watched.credit()
    }

    /// Ends what was watched of it, by whatever name: it is held here from now on.
    pub(super) fn end_of(&self, task: &Task) {
        if let Some(block) = block_of_task(task) {
            self.lock().retain(|_, standby| standby.block != block);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Standby>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn block_of_task(task: &Task) -> Option<(DeviceKind, u64)> {
    Some(block_of(&Place::find_by(&task.device, task.guarded_by.as_deref(), None).ok()?))
}

fn block_of(place: &Place) -> (DeviceKind, u64) {
    (place.device().kind(), place.offset_bytes())
}

fn report(device: &str, standby: &Standby) -> Report {
    let (state, quiet, by, says) = match standby.watched.view() {
        View::Starting => ("starting", None, None, "not looked at yet".to_owned()),
        View::Unreadable(why) => ("unreadable", None, None, why),
        View::Stands { sequence, by, quiet, silent, changed } => {
            let (state, says) = match sequence {
                Sequence::Clean => ("clean", "nobody uses it".to_owned()),
                Sequence::Fsck => ("fsck", "marked by e2fsck".to_owned()),
                Sequence::Unknown(seq) => ("unreadable", format!("unknown sequence {seq:#x}")),
                Sequence::Live(_) if silent => {
                    ("silent", format!("its holder has been silent for {}", render::seconds(quiet)))
                }
                Sequence::Live(_) if changed => ("live", "in use elsewhere".to_owned()),
                Sequence::Live(_) => ("unclean", "not clean; watching whether its holder beats".to_owned()),
            };
            (state, Some(quiet), Some(render::peer(&by)), says)
        }
    };
    Report {
        device: device.to_owned(),
        area: standby.area.clone(),
        state: state.to_owned(),
        quiet_ms: quiet.map_or(0, |quiet| u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX)),
        last_named: by,
        says,
    }
}
