//! For `farrier discover scan --identify` beside a daemon: that one has the credentials.

use super::args::Global;
use super::client::Api;
use super::out::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Asks the daemon who answers at some addresses.
///
/// # Errors
/// A sentence for a person, with what to do.
pub(crate) async fn identify<T: DeserializeOwned>(
    global: &Global,
    order: &impl Serialize,
) -> Result<T, String> {
    let asked = async { Api::new(global)?.post("/v1/discover/identify", order, None).await };
    match asked.await {
        Ok(answer) => Ok(answer.value),
        Err(Failure::Usage { error, hint } | Failure::Error { error, hint }) => {
            let own = "the daemon has the database and is asked: --api says where it is; or give \
                       FARRIER_BMC_USER and FARRIER_BMC_PASSWORD in the environment";
            Err(format!("{error}\n  hint: {}", hint.as_deref().unwrap_or(own)))
        }
        Err(Failure::Pipe | Failure::Said) => Err("the daemon could not be asked".into()),
    }
}
