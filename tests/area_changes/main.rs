//! Areas of image files, made, changed, broken by hand and repaired, through `mmpguard::area`; without root. U is 0.1 s, so the lock
//! takes 1.1 s, and every case is a few seconds long.

mod change;
mod create;
mod relocate;
mod repair;
mod stage;
