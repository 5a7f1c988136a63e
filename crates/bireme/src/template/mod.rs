//! The part of Go's `text/template` that `--format` is used with, over JSON values.
//!
//! Actions: fields (`.A.B`, `$`, `$x.A`), pipelines, `if`/`else if`/`else`, `range` with `else`, `break` and `continue`,
//! `with`, variables, `{{-` and `-}}`, comments. Functions: `json`, `join`, `split`, `lower`, `upper`, `title`, `pad`, `truncate`,
//! `print`, `printf`, `println`, `len`, `index`, `slice`, comparisons and `and`, `or`, `not`. Source: the
//! package documentation of `text/template` and docker's `templates` package.

mod eval;
mod parse;
mod printf;

use serde_json::Value;

/// A template that was read and can be applied to any number of values.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

/// Why a template was refused, or could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub struct TemplateError(pub(crate) String);

/// Answers a method call such as `.Label "key"`; `None` when there is no such method.
pub type Methods<'a> = &'a dyn Fn(&str, &[Value]) -> Option<Value>;

impl Template {
    /// Reads a template. `\t` and `\n` written out stand for the characters, as in Docker.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        Ok(Self { nodes: parse::parse(&text)? })
    }

    /// Applies it to `value`.
    pub fn render(&self, value: &Value) -> Result<String, TemplateError> {
        self.render_with(value, &|_, _| None)
    }

    /// Applies it to `value`, which has methods besides fields.
    pub fn render_with(&self, value: &Value, methods: Methods<'_>) -> Result<String, TemplateError> {
        eval::Scope::new(value, methods).render(&self.nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, expected: &str) {
        let value = json!({
            "Name": "/web", "Id": "sha256:abc", "Size": 12, "Ratio": 1.5, "On": true, "Off": false, "Nothing": null,
            "State": {"Status": "running", "Code": 0}, "Empty": [],
            "Cmd": ["sh", "-c", "a b"], "Labels": {"a": "1", "b.c": "2"},
            "Mounts": [{"Src": "/x"}, {"Src": "/y"}],
            "Ports": {"80/tcp": [{"HostPort": "8080"}]},
        });
        let got = match Template::parse(template).and_then(|parsed| parsed.render(&value)) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{template}");
    }

    #[test]
    fn fields_and_literals() {
        check("x {{.Name}} y", "x /web y");
        check("{{ .State.Status }}{{.State.Code}}", "running0");
        check("{{.Size}} {{.Ratio}} {{.On}} {{.Nothing}}", "12 1.5 true <no value>");
        check("{{.Cmd}} {{.Labels}}", "[sh -c a b] map[a:1 b.c:2]");
        check("{{\"q\\\"t\"}} {{`raw`}} {{3}}", "q\"t raw 3");
        check("a\\tb\\n", "a\tb\n");
        check("{{/* nothing */}}x", "x");
        check("a  {{- .Size -}}  b", "a12b");
    }

    #[test]
    fn functions_and_pipelines() {
        check("{{json .State}}", r#"{"Code":0,"Status":"running"}"#);
        check("{{.Cmd | json}}", r#"["sh","-c","a b"]"#);
        check("{{json .Name}}", "\"/web\"");
        check("{{join .Cmd \",\"}} {{upper .Name}} {{lower \"AB\"}} {{title \"ab\"}}", "sh,-c,a b /WEB ab Ab");
        check("{{index .Cmd 0}} {{index .Labels \"b.c\"}} {{len .Cmd}}", "sh 2 3");
        check("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080");
        check(
            "{{printf \"%s=%d %v %q %5s|%-5s|%%\" .Id .Size .On \"x\" \"r\" \"l\"}}",
            "sha256:abc=12 true \"x\"     r|l    |%",
        );
        check("{{println .Size}}", "12\n");
        check("{{slice .Name 1}} {{truncate .Name 2}} {{pad \"x\" 1 1}}", "web /w  x ");
        check("{{index (split .Id \":\") 1}}", "abc");
    }

    #[test]
    fn control() {
        check("{{if .On}}a{{else}}b{{end}}{{if .Off}}a{{else}}b{{end}}", "ab");
        check("{{if eq .Size 12}}yes{{end}}{{if ne .Name \"/web\"}}no{{end}}", "yes");
        check("{{if and .On (not .Off)}}t{{end}}{{if or .Off .Missing}}f{{else if gt .Size 3}}g{{end}}", "tg");
        check("{{range .Mounts}}{{.Src}};{{end}}{{range .Empty}}x{{else}}none{{end}}", "/x;/y;none");
        check("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a=1 b.c=2 ");
        check("{{range $i, $c := .Cmd}}{{if $i}},{{end}}{{$c}}{{end}}", "sh,-c,a b");
        check("{{with .State}}{{.Status}} {{$.Name}}{{end}}{{with .Nothing}}x{{else}}y{{end}}", "running /weby");
        check("{{with .Nothing}}x{{else with .Off}}y{{else with .Name}}{{.}}{{end}}", "/web");
        check("{{with $s := .State}}{{$s.Status}}{{end}}", "running");
        check("{{range .Cmd}}{{if eq . \"-c\"}}{{continue}}{{end}}{{.}};{{end}}", "sh;a b;");
        check("{{range .Cmd}}{{if eq . \"-c\"}}{{break}}{{end}}{{.}};{{end}}{{.Size}}", "sh;12");
        check("{{range $i, $e := 3}}{{$e}}{{end}}{{range 2}}.{{end}}", "012..");
        check("{{if and .Off (index .Cmd 9)}}x{{else}}short{{end}}", "short");
        check("{{$x := 1}}{{if .On}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21");
        check("{{$x := 1}}{{if .On}}{{$x = 2}}{{end}}{{$x}}", "2");
        check("{{- /* trimmed */ -}} x", "x");
        check("{{$x := .Size}}{{$x}}", "12");
        check("{{if .Missing}}x{{end}}", "");
    }

    #[test]
    fn a_missing_key_of_a_map_is_no_mistake() {
        check("{{.Labels.nope}}|{{index .Labels \"nope\"}}|", "<no value>||");
        check("{{with .Labels}}{{.nope}}{{.a}}{{end}}", "<no value>1");
        check("{{$l := .Labels}}{{$l.nope}}", "<no value>");
        check("{{(.Labels).nope}}", "<no value>");
        check("{{index .Ports \"81/tcp\"}}", "[]");
        check("{{.Labels.nope.deeper}}", "<no value>");
        check("{{.ID}} {{.Sysctls}} {{.State.Health}}", "sha256:abc map[] <no value>");
        check("{{if .Labels.nope}}x{{else}}y{{end}}", "y");
    }

    #[test]
    fn printf_is_gos() {
        check("{{printf \"%T %T %T %T\" .Name .Size .Cmd .Labels}}", "string int []string map[string]string");
        check("{{printf \"%05d|%+d|%-4d|%x|%X|%#x\" .Size .Size .Size .Size .Size .Size}}", "00012|+12|12  |c|C|0xc");
        check("{{printf \"%.1f|%6.2f|%v\" .Ratio .Ratio .Ratio}}", "1.5|  1.50|1.5");
        check("{{printf \"%d %t\" .Name .Name}}", "%!d(string=/web) %!t(string=/web)");
        check("{{printf \"%s\" .Size}}", "%!s(int=12)");
        check(
            "{{printf \"%d\"}} {{printf \"x\" 1}} {{printf \"100%\"}}",
            "%!d(MISSING) x%!(EXTRA int=1) 100%!(NOVERB)",
        );
        check("{{printf \"%q %s %.2s\" .Cmd .Cmd .Id}}", "[\"sh\" \"-c\" \"a b\"] [sh -c a b] sh");
        check("{{printf \"%*d|\" 5 .Size}}", "   12|");
        check("{{print 1 2 \"x\" 3 4}} {{title \"two words\"}}", "1 2x3 4 Two Words");
        check("{{html \"<a>&\"}}", "&lt;a&gt;&amp;");
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        check("{{.Nmae}}", "template: no field \"Nmae\": did you mean \"Name\"?");
        check("{{.Name", "template: an action is not closed with }}");
        check("{{if .On}}x", "template: {{if}} or {{range}} without {{end}}");
        check("{{end}}", "template: unexpected {{end}}");
        check("{{nope .On}}", "template: function \"nope\" is not known");
        check("{{.Name.First}}", "template: cannot take field \"First\" of a string");
        check("{{index .Cmd 9}}", "template: index 9 is out of range: there are 3 elements");
    }
}
