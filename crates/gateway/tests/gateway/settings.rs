//! Settings of applications: from a controller over the disk to a device, and what it says of them to whom the Kubernetes API allows it.

use base64::Engine as _;
use serde_json::{Value, json};
use wasmbed_protocol::{
    ApplicationUid, DeviceMessage, Hello, List, MessageGroups, Revision, SettingResult, SettingState,
    SettingValue, SettingsAnswer,
};

use crate::{messages::world_with, support::*};

const SETTINGS: &str = "/v1/settings?namespace=default&application=hello";
const REVISION: u64 = (1 << 32) + 1;
/// `{1: [{1: "on", 2: true}]}`.
const ON: [u8; 10] = [0xa1, 0x01, 0x81, 0xa2, 0x01, 0x62, b'o', b'n', 0x02, 0xf5];

async fn world() -> (World, DeviceClient) {
    world_with(Hello { groups: Some(MessageGroups::ALL), ..hello(0, 0) }).await
}

fn put(revision: u64) -> Vec<u8> {
    let values = base64::engine::general_purpose::STANDARD.encode(ON);
    let application = json!({ "application_uid": ApplicationUid([1; 16]).to_string(), "values": values });
    let device = json!({
        "device": { "namespace": "default", "name": "a" }, "revision": revision, "applications": [application],
    });
    json!({ "leader_term": 1, "devices": [device] }).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_reach_the_device_and_what_it_says_of_them_whoever_asks() {
    let (mut world, mut device) = world().await;
    let mut http = world.controller().await;
    let (status, answer) = http.call("PUT", "/v1/settings", put(REVISION)).await;
    assert_eq!((status, &answer["refused"]), (200, &json!([])));
    let sent = device.next().await.unwrap();
    assert!(sent.starts_with("Settings") && sent.contains(&format!("Revision({REVISION})")), "{sent}");
    let states = [SettingState {
        name: "on",
        result: SettingResult::Accepted,
        value: Some(SettingValue::Boolean(true)),
    }];
    let (uid, revision) = (ApplicationUid([1; 16]), Revision(REVISION));
    let answer = SettingsAnswer { uid, revision, settings: List::new(&states) };
    device.send(&DeviceMessage::SettingsAnswer(answer)).await.unwrap();
    let report = soon("the answer", async {
        loop {
            let (status, report) = world.administrator().await.call("GET", SETTINGS, "").await;
            assert_eq!(status, 200, "{report}");
            if report["devices"][0]["revision_answered"] == json!(REVISION) {
                return report;
            }
        }
    })
    .await;
    let expected = json!([{ "name": "on", "wanted": true, "result": "Accepted", "value": true }]);
    assert_eq!(report["devices"][0]["settings"], expected);
    assert_eq!(report["devices"][0]["device"], "a");
    let (status, other) =
        world.administrator().await.call("GET", "/v1/settings?namespace=default&application=x", "").await;
    assert_eq!((status, &other["devices"]), (200, &json!([])));
    assert_eq!(world.administrator().await.call("GET", "/v1/settings?namespace=default", "").await.0, 400);

    // They are on the disk.
    world.stop_gateway().await;
    world.start_gateway(|_| {}).await;
    world.wait_ready().await;
    let report: Value = world.administrator().await.call("GET", SETTINGS, "").await.1;
    assert_eq!(report["devices"][0]["revision"], json!(REVISION));
    let (status, answer) = world.controller().await.call("PUT", "/v1/settings", put(REVISION - 1)).await;
    assert_eq!(status, 200);
    assert!(answer["refused"][0]["message"].as_str().unwrap().contains("is lower than"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_for_whom_the_api_allows_them() {
    let (world, _device) = world().await;
    let mut ada = world.person("ada", "wasmbed:operators").await;
    assert_eq!(ada.call("GET", SETTINGS, "").await.0, 200);
    let mut eve = world.person("eve", "system:authenticated").await;
    for (query, action) in [
        ("", "get devices/settings in the namespace \"default\""),
        ("&device=d", "get devices/settings \"d\" in the namespace \"default\""),
    ] {
        let (status, refusal) = eve.call("GET", &format!("{SETTINGS}{query}"), "").await;
        assert_eq!((status, refusal["reason"].as_str()), (403, Some("Forbidden")));
        let message = refusal["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("user \"eve\" may not {action}: ")), "{message}");
    }
    assert_eq!(world.controller().await.call("GET", SETTINGS, "").await.0, 403);
    assert_eq!(ada.call("PUT", "/v1/settings", put(REVISION)).await.0, 403);
}
