//! Every route of the daemon, found in its own description: none is let past by a page of another
//! site, by a name that could be rebound, or without the token.

use super::bmc::{Account, Manners};
use super::site::{OLD, Site};
use reqwest::{Method, Response};
use serde_json::Value;

struct Caller {
    http: reqwest::Client,
    url: String,
}

impl Caller {
    fn new(site: &Site) -> Caller {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Caller { http, url: site.url() }
    }

    async fn send(&self, route: &(Method, String), headers: &[(&str, &str)]) -> Response {
        let (method, path) = route;
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // Bodies are not looked at before it is known who sends them.
        request.header("content-type", "application/json").body("{}").send().await.unwrap()
    }

    async fn is_refused(&self, route: &(Method, String), headers: &[(&str, &str)], code: &str) {
        let answer = self.send(route, headers).await;
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(body["code"], code, "{route:?} {headers:?}: {status} {text}");
    }

    /// Every method of every path, with a name in the place of each parameter.
    async fn routes(&self, headers: &[(&str, &str)]) -> Vec<(Method, String)> {
        let doc = self.send(&(Method::GET, "/v1/openapi.json".into()), headers).await;
        let text = doc.text().await.unwrap();
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        assert!(text == std::fs::read_to_string(kept).unwrap(), "the description is another one");
        let doc: Value = serde_json::from_str(&text).unwrap();
        let mut out = Vec::new();
        for (path, methods) in doc["paths"].as_object().unwrap() {
            let path = path.replace("{name}", "n1").replace("{machine}", "n1").replace("{id}", "1");
            for method in methods.as_object().unwrap().keys() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                out.push((method, path.clone()));
            }
        }
        // The page for people is not in it.
        out.extend(["/", "/live", "/machines/n1"].map(|p| (Method::GET, p.to_string())));
        out
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_is_open_to_another_site_or_without_the_token() {
    let mut site = Site::new(Account::new(OLD, Manners::default()), "").await;
    site.ready();
    let caller = Caller::new(&site);
    let routes = caller.routes(&[]).await;
    for path in ["/v1/reload", "/v1/rotations", "/v1/pins", "/v1/webhooks"] {
        assert!(routes.iter().any(|(_, p)| p == path), "{path} is not described: {routes:?}");
    }
    assert!(routes.len() > 24, "{routes:?}");
    let guarded: Vec<_> = routes.into_iter().filter(|(_, path)| path != "/healthz").collect();
    for route in &guarded {
        caller.is_refused(route, &[("host", "evil.example")], "wrong-host").await;
        if route.0 != Method::GET {
            caller.is_refused(route, &[("origin", "http://evil.example")], "cross-origin").await;
        }
    }
    site.stop();
    let config = std::fs::read_to_string(site.path("farrier.toml")).unwrap();
    let config = config.replace("[listen.api]\n", "[listen.api]\ntoken_file = \"token\"\n");
    std::fs::write(site.path("farrier.toml"), config).unwrap();
    std::fs::write(site.path("token"), "the-token-of-a-test\n").unwrap();
    site.start();
    site.until_healthy().await;
    let good = ("authorization", "Bearer the-token-of-a-test");
    assert_eq!(caller.routes(&[good]).await.len(), guarded.len() + 1);
    for route in &guarded {
        caller.is_refused(route, &[], "unauthorized").await;
        caller.is_refused(route, &[("authorization", "Bearer the-token")], "unauthorized").await;
        if route.0 != Method::GET {
            let foreign = [good, ("origin", "http://evil.example")];
            caller.is_refused(route, &foreign, "cross-origin").await;
        }
    }
    let health = caller.send(&(Method::GET, "/healthz".into()), &[]).await;
    assert!(health.status().is_success());
}
