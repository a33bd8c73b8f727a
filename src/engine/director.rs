//! stub
#[derive(Debug)]
pub struct Director;
