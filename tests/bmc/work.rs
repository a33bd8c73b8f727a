//! Updates and copies that no task shows are tasks all the same: whoever asks what the BMC does is told.

use super::captured::{self, Tree};
use super::server::{Reply, Server, calm};
use super::{edge, target};
use farrier::model::facts::{Task, TaskState};
use farrier::port::BmcRead;
use serde_json::json;
use std::sync::{Arc, Mutex};

const SERVICE: &str = "/redfish/v1/UpdateService";

fn states(tasks: &[Task]) -> Vec<(&str, TaskState)> {
    tasks.iter().map(|t| (t.uri.as_str(), t.state)).collect()
}

#[tokio::test]
async fn an_ilo_that_flashes_says_so_without_a_task() {
    let says = Arc::new(Mutex::new("Idle"));
    let now = says.clone();
    let server = Server::start(move |r, _| match (r.path.as_str(), calm(r)) {
        ("/redfish/v1/", Reply::Json(200, h, mut v)) => {
            v["Vendor"] = json!("HPE");
            Reply::Json(200, h, v)
        }
        (SERVICE, Reply::Json(200, h, mut v)) => {
            v["Oem"] = json!({"Hpe": {"State": *now.lock().unwrap(), "FlashProgressPercent": 3}});
            Reply::Json(200, h, v)
        }
        ("/redfish/v1/TaskService/Tasks", _) => Reply::ok(json!({"Members": []})),
        (_, reply) => reply,
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    let handle = "/redfish/v1/UpdateService#/Oem/Hpe/State";
    assert_eq!(edge.tasks(&bmc, None).await.unwrap(), vec![]);
    for said in ["Uploading", "Verifying", "Writing", "Updating", "a word of the next firmware"] {
        *says.lock().unwrap() = said;
        for handle in [None, Some(handle), Some("/redfish/v1/TaskService/Tasks/gone")] {
            let tasks = edge.tasks(&bmc, handle).await.unwrap();
            assert_eq!(
                states(&tasks),
                [("/redfish/v1/UpdateService#/Oem/Hpe/State", TaskState::InProgress)]
            );
            assert_eq!(tasks[0].raw_state, said);
        }
    }
    // How it ended is said to whoever followed it; it stays written there, and is no news to others.
    for (said, state) in [("Complete", TaskState::Succeeded), ("Error", TaskState::Failed)] {
        *says.lock().unwrap() = said;
        assert_eq!(states(&edge.tasks(&bmc, Some(handle)).await.unwrap()), [(handle, state)]);
        assert_eq!(edge.tasks(&bmc, None).await.unwrap(), vec![]);
    }
    *says.lock().unwrap() = "Idle";
    assert_eq!(edge.tasks(&bmc, Some(handle)).await.unwrap(), vec![], "gone: versions decide");
}

#[tokio::test]
async fn work_that_can_not_be_read_may_go_on() {
    let server = Server::start(|r, _| match (r.path.as_str(), calm(r)) {
        ("/redfish/v1/", Reply::Json(200, h, mut v)) => {
            v["Vendor"] = json!("HPE");
            Reply::Json(200, h, v)
        }
        (SERVICE, _) => Reply::status(500),
        (_, reply) => reply,
    })
    .await;
    let read = edge().tasks(&target(&server.url), None).await;
    assert_eq!(read.unwrap_err().code, "bmc-error");
}

#[tokio::test]
async fn a_root_of_trust_that_copies_is_waited_for() {
    let Some(tree) = captured::tree("nvidia-dgxh100-ami") else { return };
    let path = "/redfish/v1/chassis/hgx_erot_gpu_sxm_3";
    let with = |said: &str| {
        let mut tree: Tree = (*tree).clone();
        let chassis = tree.get_mut(path).unwrap();
        assert_eq!(chassis["Oem"]["Nvidia"]["BackgroundCopyStatus"], "Completed");
        chassis["Oem"]["Nvidia"]["BackgroundCopyStatus"] = json!(said);
        Arc::new(tree)
    };
    for (said, busy) in [("Completed", false), ("InProgress", true), ("Pending", true)] {
        let server = captured::serve(with(said)).await;
        let tasks = edge().tasks(&target(&server.url), None).await.unwrap();
        let running: Vec<&Task> =
            tasks.iter().filter(|t| t.state == TaskState::InProgress).collect();
        assert_eq!(running.len(), usize::from(busy), "{said}: {running:?}");
        for task in running {
            let property = "#/Oem/Nvidia/BackgroundCopyStatus";
            assert_eq!(task.uri, format!("/redfish/v1/Chassis/HGX_ERoT_GPU_SXM_3{property}"));
        }
        let chassis = server.seen().iter().filter(|s| s.path.contains("/Chassis/")).count();
        assert_eq!(chassis, 15, "those that copy, and no others");
    }
}

/// After its reset a BMC has a list of chassis before it has chassis.
#[tokio::test]
async fn a_board_that_lists_no_chassis_yet_may_be_copying() {
    let Some(tree) = captured::tree("nvidia-dgxh100-ami") else { return };
    let mut half: Tree = (*tree).clone();
    half.get_mut("/redfish/v1/chassis").unwrap()["Members"] = json!([]);
    let server = captured::serve(Arc::new(half)).await;
    let fault = edge().tasks(&target(&server.url), None).await.unwrap_err();
    assert_eq!(&*fault.code, "not-redfish", "{fault}");
}

#[tokio::test]
async fn a_vendor_that_hides_nothing_is_asked_nothing_more() {
    let server = Server::start(|r, _| calm(r)).await;
    edge().tasks(&target(&server.url), None).await.unwrap();
    let seen = server.seen();
    assert!(!seen.iter().any(|s| s.path.contains("Chassis") || s.path == SERVICE));
}
