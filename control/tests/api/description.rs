//! `/openapi.json` taken at its word: answers conform to it, what it lists is served, and shared types are as described.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wire::{
    report::{Registration, Report},
    title::Title,
};

use crate::service::{Reply, registration, report, request, start, title};

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// A parsed description of the API.
pub(crate) struct Description(Value);

/// The members that an object may have and must have.
#[derive(Default)]
struct Members<'a> {
    known: BTreeMap<&'a str, &'a Value>,
    required: BTreeSet<&'a str>,
}

impl Description {
    pub(crate) fn parse(json: &[u8]) -> Self {
        Self(serde_json::from_slice(json).unwrap())
    }

    /// Panics unless `reply` is what the description says of `method` at `path`. The player's pages are not described.
    pub(crate) fn check_reply(&self, method: &Method, path: &str, reply: &Reply) {
        let is = |template: &str| {
            let (path, template) = (path.split('/').collect::<Vec<_>>(), template.split('/').collect::<Vec<_>>());
            path.len() == template.len() && path.iter().zip(&template).all(|(part, name)| name.starts_with('{') || part == name)
        };
        let operation = self.0["paths"].as_object().unwrap().iter().find(|(template, _)| is(template));
        let operation = operation.map_or(&Value::Null, |(_, item)| &item[method.as_str().to_lowercase()]);
        let status = reply.status.as_str();
        let response = operation["responses"].get(status).or_else(|| operation["responses"].get("default"));
        let content_type = reply.header("content-type");
        match response {
            Some(response) if response.get("content").is_some() => {
                let content = response["content"]
                    .get(content_type)
                    .or_else(|| response["content"].get(content_type.split(';').next().unwrap()));
                let schema =
                    &content.unwrap_or_else(|| panic!("{method} {path} {status}: {content_type:?} is not described"))["schema"];
                if content_type.contains("json") {
                    self.conforms(schema, &reply.json(), "").unwrap_or_else(|error| panic!("{method} {path} {status}: {error}"));
                }
            }
            Some(_) => assert!(reply.body.is_empty(), "{method} {path} {status}: no body is described"),
            None if reply.status.is_client_error() => {
                let problem = json!({ "$ref": "#/components/schemas/Problem" });
                self.conforms(&problem, &reply.json(), "").unwrap_or_else(|error| panic!("{method} {path} {status}: {error}"));
            }
            None => assert!(operation.is_null(), "{method} {path} {status} is not described"),
        }
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let Some(reference) = schema["$ref"].as_str() else {
            return schema;
        };
        let pointer = reference.strip_prefix('#').unwrap();
        self.resolve(self.0.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere")))
    }

    /// Whether `value` is what `schema` says, and has no member that it does not describe.
    fn conforms(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = self.resolve(schema);
        if let Some(types) = schema.get("type") {
            let types = types.as_array().cloned().unwrap_or_else(|| vec![types.clone()]);
            if !types.iter().any(|name| has_type(value, name.as_str().unwrap())) {
                return Err(format!("{at}: {value} is none of {types:?}"));
            }
        }
        if let Some(values) = schema["enum"].as_array()
            && !values.contains(value)
        {
            return Err(format!("{at}: {value} is none of {values:?}"));
        }
        match value {
            Value::Object(members) if schema.get("properties").or(schema.get("allOf")).is_some() => {
                let described = self.members(schema, value)?;
                if let Some(missing) = described.required.iter().find(|name| !members.contains_key(**name)) {
                    return Err(format!("{at}: {missing} is missing"));
                }
                members.iter().try_for_each(|(name, member)| match described.known.get(name.as_str()) {
                    Some(schema) => self.conforms(schema, member, &format!("{at}/{name}")),
                    None => Err(format!("{at}: {name} is not described")),
                })
            }
            Value::Array(items) => {
                items.iter().enumerate().try_for_each(|(n, item)| self.conforms(&schema["items"], item, &format!("{at}/{n}")))
            }
            _ => match schema["oneOf"].as_array() {
                Some(variants) => variants
                    .iter()
                    .map(|variant| self.conforms(variant, value, at))
                    .find(Result::is_ok)
                    .unwrap_or_else(|| Err(format!("{at}: {value} is none of its variants"))),
                None => Ok(()),
            },
        }
    }

    /// What `schema` says of the members of the object `value`, with all parts of `allOf` and the fitting one of `oneOf`.
    fn members<'a>(&'a self, schema: &'a Value, value: &Value) -> Result<Members<'a>, String> {
        let schema = self.resolve(schema);
        let mut all = Members::default();
        if let Some(properties) = schema["properties"].as_object() {
            all.known.extend(properties.iter().map(|(name, schema)| (name.as_str(), schema)));
        }
        if let Some(required) = schema["required"].as_array() {
            all.required.extend(required.iter().map(|name| name.as_str().unwrap()));
        }
        let mut parts: Vec<&Value> = schema["allOf"].as_array().map(|parts| parts.iter().collect()).unwrap_or_default();
        if let Some(variants) = schema["oneOf"].as_array() {
            let fits = |variant: &&Value| {
                let tags = self.resolve(variant)["properties"].as_object().into_iter().flatten();
                tags.filter(|(_, schema)| schema.get("enum").is_some())
                    .all(|(tag, schema)| self.conforms(schema, &value[tag], "").is_ok())
            };
            parts.push(variants.iter().find(fits).ok_or_else(|| format!("{value} is none of its variants"))?);
        }
        for part in parts {
            let members = self.members(part, value)?;
            all.known.extend(members.known);
            all.required.extend(members.required);
        }
        Ok(all)
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{name} is no JSON type"),
    }
}

#[tokio::test]
async fn everything_described_is_served_and_described_in_words() {
    let (_dir, service) = start().await;
    let description = service.get("/openapi.json").await.json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut operations = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{method}");
            let what = format!("{method} {path}");
            let said =
                |value: &Value, what: &str| assert!(value.as_str().is_some_and(|text| text.len() > 3), "{what} is not described");
            said(&operation["summary"], &what);
            assert!(
                operations.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{what}: operationId is there twice"
            );
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                said(&parameter["description"], &format!("{what} {}", parameter["name"]));
            }
            let in_path = path.split('/').filter(|part| part.starts_with('{')).count();
            let described =
                operation["parameters"].as_array().into_iter().flatten().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(in_path, described, "{what}");
            assert!(operation["responses"]["default"].is_object(), "{what}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                said(&response["description"], &format!("{what} {status}"));
            }
            // Placeholders are given what parses as any of their types, so that only the router can find nothing here.
            let reply = service.send(request(method.to_uppercase().parse().unwrap(), &path.replace(['{', '}'], ""))).await;
            assert_ne!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{what}");
            let problem: Option<Value> = serde_json::from_slice(&reply.body).ok();
            let is_served =
                path.starts_with("/problems/") || problem.is_none_or(|problem| problem["type"] != "/problems/no-such-route");
            assert!(is_served, "{what}");
        }
    }
    let expected = [
        "accountMisses",
        "amendVideo",
        "checkHealth",
        "checkReadiness",
        "continueWatching",
        "describeApi",
        "drainEdge",
        "explainProblem",
        "explainSteering",
        "exportUser",
        "findOpinion",
        "findPosition",
        "findSegment",
        "forgetMe",
        "forgetUser",
        "hideUnfinished",
        "inspectSearch",
        "keepPosition",
        "listEdges",
        "listHistory",
        "listKeys",
        "listLikes",
        "listSites",
        "listTrends",
        "listVideos",
        "lookUpPurge",
        "lookUpSite",
        "lookUpVideo",
        "measure",
        "playVideo",
        "publishVideo",
        "purge",
        "putSite",
        "rateVideo",
        "readAudit",
        "readQuality",
        "readReference",
        "readSteeredManifest",
        "readSteeredPlaylist",
        "rebuildSearch",
        "recommend",
        "registerEdge",
        "removeEdge",
        "removeSite",
        "removeVideo",
        "reportEdge",
        "sendActivity",
        "showThumbnail",
        "steer",
        "streamEdge",
        "undrainEdge",
        "whoAmI",
    ];
    assert_eq!(operations.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_member_is_named_once() {
    let (_dir, service) = start().await;
    let description = Description(service.get("/openapi.json").await.json());
    let mut nodes = vec![&description.0];
    while let Some(node) = nodes.pop() {
        if node.is_object() {
            description.resolve(node);
        }
        nodes.extend(node.as_object().into_iter().flat_map(|members| members.values()));
        nodes.extend(node.as_array().into_iter().flatten());
    }
    let schemes = &description.0["components"]["securitySchemes"];
    assert!(schemes["operator"]["scheme"] == "bearer" && schemes["edge"]["scheme"] == "bearer");
}

#[tokio::test]
async fn shared_types_are_as_described_member_by_member() {
    let (_dir, service) = start().await;
    let description = Description(service.get("/openapi.json").await.json());
    holds::<Title>(&description, "Title", &title("demo"));
    let mut announcing = registration("e1");
    announcing["prefixes"] = json!(["10.0.0.0/8"]);
    holds::<Registration>(&description, "Registration", &announcing);
    holds::<Report>(&description, "Report", &report("ready"));
    holds::<Report>(&description, "Report", &report("draining"));
}

/// `sample` has every member: each is described, nothing else is, and exactly the required ones cannot be left out.
fn holds<T: DeserializeOwned>(description: &Description, name: &str, sample: &Value) {
    let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
    description.conforms(&schema, sample, name).unwrap();
    serde_json::from_value::<T>(sample.clone()).unwrap();

    let mut nodes = vec![(String::new(), &schema)];
    while let Some((pointer, schema)) = nodes.pop() {
        let schema = description.resolve(schema);
        let value = sample.pointer(&pointer).unwrap();
        if value.is_array() {
            // The last rendition is audio and the first is video; other lists have items of one shape.
            let last = value.as_array().unwrap().len() - 1;
            nodes.extend([0, last].map(|n| (format!("{pointer}/{n}"), &schema["items"])));
        } else if value.is_object() {
            let members = description.members(schema, value).unwrap();
            let present: BTreeSet<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(members.known.keys().copied().collect::<BTreeSet<_>>(), present, "{name}{pointer}");
            for (member, schema) in members.known {
                let mut without = sample.clone();
                without.pointer_mut(&pointer).unwrap().as_object_mut().unwrap().remove(member);
                let refused = serde_json::from_value::<T>(without).is_err();
                assert_eq!(refused, members.required.contains(member), "{name}{pointer}/{member}: required or not?");
                nodes.push((format!("{pointer}/{member}"), schema));
            }
        }
    }
}
