//! `/docs`: the API's description as a page to read, made once from the same value as `/openapi.json`. No scripts, nothing from
//! elsewhere; whatever the description says is escaped.

use std::{
    fmt::{self, Display, Write as _},
    sync::Arc,
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
};
use serde_json::{Map, Value};
use wire::object::Digest;

use super::{App, caching::fixed};

const STYLE: &str = include_str!("docs.css");
/// In the order in which a resource's methods are read.
const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];
/// How deep a type is written out in one line.
const DEPTH_MAX: usize = 8;

/// The page and what goes with it.
pub(crate) struct Page {
    html: Bytes,
    etag: HeaderValue,
    policy: HeaderValue,
}

impl Page {
    /// The page of `openapi`.
    pub(super) fn of(openapi: &Value) -> Self {
        let mut html = String::new();
        page(&mut html, openapi).expect("a String takes all");
        let style = BASE64_STANDARD.encode(Digest::of(STYLE.as_bytes()).as_bytes());
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        );
        Self {
            etag: HeaderValue::try_from(Digest::of(html.as_bytes()).etag()).expect("hexadecimal digits"),
            policy: HeaderValue::try_from(policy).expect("base64"),
            html: html.into(),
        }
    }
}

/// This reference, to be read.
#[utoipa::path(
    get, path = "/docs", tag = "operation", operation_id = "readReference",
    responses(
        (status = 200, description = "A page.", body = String, content_type = "text/html"),
        (status = 304, description = "It is the one that If-None-Match names."),
    )
)]
pub(super) async fn docs(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let page = &app.docs;
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, page.policy.clone()),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    fixed(&headers, &page.etag, (head, page.html.clone()).into_response())
}

fn page(out: &mut String, openapi: &Value) -> fmt::Result {
    let info = &openapi["info"];
    let title = text(&info["title"]);
    write!(
        out,
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}: API reference</title>\n<style>{STYLE}</style>\n"
    )?;
    let tags = tags(openapi);
    out.push_str("<nav aria-label=\"Contents\"><ul>\n");
    for (name, _, operations) in &tags {
        write!(out, "<li><a href=\"#tag-{name}\">{name}</a><ul>")?;
        for operation in operations {
            write!(
                out,
                "<li><a href=\"#{}\">{} {}</a></li>",
                text(&operation.value["operationId"]),
                operation.verb(),
                wrapped(operation.path)
            )?;
        }
        out.push_str("</ul></li>\n");
    }
    out.push_str("<li><a href=\"#access\">Access</a></li><li><a href=\"#schemas\">Schemas</a></li></ul></nav>\n<main>\n");
    write!(out, "<h1>{title} <small>{}</small></h1>\n{}", text(&info["version"]), prose(&info["description"]))?;
    out.push_str("<p>The same for programs: <a href=/openapi.json>/openapi.json</a> (OpenAPI 3.1).\n");
    for (name, description, operations) in &tags {
        write!(out, "<section><h2 id=\"tag-{name}\">{name}</h2>\n{}", prose(description))?;
        operations.iter().try_for_each(|operation| operation.write(out))?;
        out.push_str("</section>\n");
    }
    access(out, &openapi["components"]["securitySchemes"])?;
    schemas(out, &openapi["components"]["schemas"])?;
    out.push_str("</main>\n");
    Ok(())
}

/// One method of one path.
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    value: &'a Value,
}

/// Every tag with its description and operations, in the order in which the description has them.
fn tags(openapi: &Value) -> Vec<(Escaped<'_>, &Value, Vec<Operation<'_>>)> {
    let mut tags: Vec<(&str, &Value, Vec<Operation<'_>>)> =
        list(&openapi["tags"]).map(|tag| (tag["name"].as_str().unwrap_or_default(), &tag["description"], Vec::new())).collect();
    for (path, item) in members(&openapi["paths"]) {
        for method in METHODS {
            let Some(value) = item.get(method) else { continue };
            let name = value["tags"][0].as_str().unwrap_or("other");
            let operation = Operation { method, path, value };
            match tags.iter_mut().find(|(tag, ..)| *tag == name) {
                Some((.., operations)) => operations.push(operation),
                None => tags.push((name, &Value::Null, vec![operation])),
            }
        }
    }
    tags.into_iter().map(|(name, description, operations)| (Escaped(name), description, operations)).collect()
}

impl Operation<'_> {
    fn verb(&self) -> String {
        format!("<b class=\"{0}\">{1}</b>", self.method, self.method.to_ascii_uppercase())
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let Self { path, value, .. } = self;
        let id = text(&value["operationId"]);
        writeln!(
            out,
            "<article id=\"{id}\"><h3>{} <code>{}</code> <a href=\"#{id}\" title=\"{id}\">#</a></h3>",
            self.verb(),
            wrapped(path)
        )?;
        write!(out, "{}{}", prose(&value["summary"]), prose(&value["description"]))?;
        self.security(out)?;
        self.parameters(out)?;
        self.body(out)?;
        self.responses(out)?;
        out.push_str("</article>\n");
        Ok(())
    }

    fn security(&self, out: &mut String) -> fmt::Result {
        let ways: Vec<String> = list(&self.value["security"])
            .map(|way| match members(way).next() {
                Some((scheme, _)) => format!("<a href=\"#access\">{}</a>", Escaped(scheme)),
                None => "anyone, where control is open".into(),
            })
            .collect();
        if ways.is_empty() { writeln!(out, "<p>For anyone.") } else { writeln!(out, "<p>For: {}.", ways.join(", ")) }
    }

    fn parameters(&self, out: &mut String) -> fmt::Result {
        if list(&self.value["parameters"]).next().is_none() {
            return Ok(());
        }
        out.push_str("<table><caption>Parameters</caption><tr><th>name<th>in<th>type<th>what\n");
        for parameter in list(&self.value["parameters"]) {
            let required = if parameter["required"] == true { " <em>required</em>" } else { "" };
            writeln!(
                out,
                "<tr><td><code>{}</code>{required}<td>{}<td>{}<td>{}",
                text(&parameter["name"]),
                text(&parameter["in"]),
                kind(&parameter["schema"], 0),
                prose(&parameter["description"]),
            )?;
        }
        out.push_str("</table>\n");
        Ok(())
    }

    fn body(&self, out: &mut String) -> fmt::Result {
        let body = &self.value["requestBody"];
        for (content_type, content) in members(&body["content"]) {
            write!(out, "<p>Body: {} as <code>{}</code>. ", kind(&content["schema"], 0), Escaped(content_type))?;
            writeln!(out, "{}", inline(&body["description"]))?;
        }
        Ok(())
    }

    fn responses(&self, out: &mut String) -> fmt::Result {
        out.push_str("<table><caption>Answers</caption><tr><th>status<th>body<th>when\n");
        for (status, response) in members(&self.value["responses"]) {
            let bodies: Vec<String> = members(&response["content"])
                .map(|(content_type, content)| {
                    format!("{} <small>{}</small>", kind(&content["schema"], 0), Escaped(content_type))
                })
                .collect();
            let headers: Vec<String> = members(&response["headers"])
                .map(|(name, header)| format!("<br><code>{}</code>: {}", Escaped(name), inline(&header["description"])))
                .collect();
            writeln!(
                out,
                "<tr><td>{}<td>{}<td>{}{}",
                Escaped(status),
                bodies.join("<br>"),
                inline(&response["description"]),
                headers.concat()
            )?;
        }
        out.push_str("</table>\n");
        Ok(())
    }
}

fn access(out: &mut String, schemes: &Value) -> fmt::Result {
    out.push_str("<section><h2 id=\"access\">Access</h2>\n<p>Secrets and tokens go in the header <code>Authorization: Bearer …</code>.\n<dl>\n");
    for (name, scheme) in members(schemes) {
        writeln!(out, "<dt>{}<dd>{}", Escaped(name), inline(&scheme["description"]))?;
    }
    out.push_str("</dl></section>\n");
    Ok(())
}

fn schemas(out: &mut String, schemas: &Value) -> fmt::Result {
    out.push_str("<section><h2 id=\"schemas\">Schemas</h2>\n");
    for (name, schema) in members(schemas) {
        let name = Escaped(name);
        write!(out, "<article id=\"schema-{name}\"><h3><code>{name}</code></h3>\n{}", prose(&schema["description"]))?;
        let parts: Vec<&Value> = list(&schema["allOf"]).chain([schema]).collect();
        for part in &parts {
            if part.get("$ref").is_some() {
                writeln!(out, "<p>All of {}, and:", kind(part, 0))?;
            }
        }
        if parts.iter().any(|part| part.get("properties").is_some()) {
            out.push_str("<table><tr><th>member<th>type<th>what\n");
            parts.iter().try_for_each(|part| properties(out, part))?;
            out.push_str("</table>\n");
        } else if parts.len() == 1 {
            writeln!(out, "<p>{}", kind(schema, 0))?;
        }
        out.push_str("</article>\n");
    }
    out.push_str("</section>\n");
    Ok(())
}

fn properties(out: &mut String, schema: &Value) -> fmt::Result {
    for (name, property) in members(&schema["properties"]) {
        let is_required = list(&schema["required"]).any(|required| required == name);
        let required = if is_required { "" } else { " <em>optional</em>" };
        writeln!(
            out,
            "<tr><td><code>{}</code>{required}<td>{}<td>{}",
            Escaped(name),
            kind(property, 0),
            prose(&property["description"])
        )?;
    }
    Ok(())
}

/// A type in one line, with its bounds.
fn kind(schema: &Value, depth: usize) -> String {
    if depth > DEPTH_MAX {
        return "…".into();
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return format!("<a href=\"#schema-{0}\">{0}</a>", Escaped(name));
    }
    for (keyword, word) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        if schema[keyword].is_array() {
            return list(&schema[keyword]).map(|part| kind(part, depth + 1)).collect::<Vec<_>>().join(word);
        }
    }
    let names: Vec<String> = match &schema["type"] {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => vec!["anything".into()],
    };
    let mut words: Vec<String> = names
        .iter()
        .map(|name| match name.as_str() {
            "array" => format!("array of {}", kind(&schema["items"], depth + 1)),
            "object" if schema["properties"].is_object() => inside(schema, depth),
            name => Escaped(name).to_string(),
        })
        .collect();
    let values: Vec<String> =
        list(&schema["enum"]).map(|value| format!("<code>{}</code>", Escaped(&value.to_string()))).collect();
    if !values.is_empty() {
        words = vec![values.join(" ")];
    }
    words.join(" or ") + &bounds(schema)
}

/// The members of an object that has no name.
fn inside(schema: &Value, depth: usize) -> String {
    let member = |(name, property): (&str, &Value)| format!("<code>{}</code>: {}", Escaped(name), kind(property, depth + 1));
    format!("{{ {} }}", members(&schema["properties"]).map(member).collect::<Vec<_>>().join(", "))
}

fn bounds(schema: &Value) -> String {
    let words = [
        ("format", ""),
        ("minimum", "≥ "),
        ("maximum", "≤ "),
        ("minLength", "length ≥ "),
        ("maxLength", "length ≤ "),
        ("minItems", "items ≥ "),
        ("maxItems", "items ≤ "),
        ("pattern", "matches "),
        ("default", "default "),
    ];
    let bounds: Vec<String> = words
        .into_iter()
        .filter_map(|(keyword, words)| schema.get(keyword).map(|value| format!("{words}{}", text(value))))
        .collect();
    if bounds.is_empty() { String::new() } else { format!(" <small>{}</small>", bounds.join(", ")) }
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A value as text, escaped.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => Escaped(text).to_string(),
        other => Escaped(&other.to_string()).to_string(),
    }
}

/// A description, with `code` between backticks.
fn inline(value: &Value) -> String {
    let mut out = String::new();
    for (n, part) in value.as_str().unwrap_or_default().split('`').enumerate() {
        let part = Escaped(part);
        let written = if n % 2 == 1 { write!(out, "<code>{part}</code>") } else { write!(out, "{part}") };
        written.expect("a String takes all");
    }
    out
}

/// The same in paragraphs.
fn prose(value: &Value) -> String {
    let paragraphs = value.as_str().unwrap_or_default().split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    paragraphs.map(|paragraph| format!("<p>{}\n", inline(&Value::from(paragraph)))).collect()
}

/// A path that may be broken after its slashes.
fn wrapped(path: &str) -> String {
    Escaped(path).to_string().replace('/', "/<wbr>")
}

/// Text in HTML.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_a_description_says_is_text() {
        let evil = "<script>alert(\"1\")</script> & `<b>`";
        let openapi = json!({
            "info": { "title": evil, "version": evil, "description": evil },
            "tags": [{ "name": evil, "description": evil }],
            "paths": { "/<script>": { "get": {
                "tags": [evil], "operationId": evil, "summary": evil, "description": evil, "security": [{ evil: [] }],
                "parameters": [{ "name": evil, "in": evil, "description": evil, "schema": { "type": evil, "pattern": evil, "default": { evil: evil } } }],
                "requestBody": { "description": evil, "content": { evil: { "schema": { "$ref": evil } } } },
                "responses": { evil: { "description": evil, "headers": { evil: { "description": evil } } } },
            } } },
            "components": {
                "securitySchemes": { evil: { "description": evil } },
                "schemas": { evil: { "description": evil, "properties": { evil: { "enum": [evil], "description": evil } } } },
            },
        });
        let html = String::from_utf8(Page::of(&openapi).html.into()).unwrap();
        assert!(!html.contains("<script") && !html.contains("<b>`"), "{html}");
        assert!(html.contains("&lt;script&gt;"));
    }

    #[test]
    fn types_are_written_in_a_line() {
        for (schema, line) in [
            (json!({ "$ref": "#/components/schemas/Video" }), "<a href=\"#schema-Video\">Video</a>"),
            (
                json!({ "type": "array", "items": { "type": "string" }, "maxItems": 3 }),
                "array of string <small>items ≤ 3</small>",
            ),
            (json!({ "type": ["string", "null"], "format": "uri" }), "string or null <small>uri</small>"),
            (json!({ "type": "string", "enum": ["a", "b"] }), "<code>&quot;a&quot;</code> <code>&quot;b&quot;</code>"),
            (json!({ "oneOf": [{ "type": "null" }, { "type": "integer", "minimum": 1 }] }), "null or integer <small>≥ 1</small>"),
            (json!({ "type": "object", "properties": { "x": { "type": "number" } } }), "{ <code>x</code>: number }"),
            (json!({}), "anything"),
        ] {
            assert_eq!(kind(&schema, 0), line);
        }
        let mut deep = json!({ "type": "string" });
        for _ in 0..100 {
            deep = json!({ "type": "array", "items": deep });
        }
        assert!(kind(&deep, 0).ends_with('…'));
    }
}
