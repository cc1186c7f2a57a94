//! Sentences about map streams, under paused time.

mod ends;
mod everything;
mod frames;
mod keep_alive;
mod lab;
mod law;
mod pace;
mod policy;
mod presence;
mod size;
