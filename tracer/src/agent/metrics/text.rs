//! Writes Prometheus's text format 0.0.4.
//!
//! The library only writes OpenMetrics text, in which a counter's family name lacks the `_total` of its series.

use std::fmt::Write as _;

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    LabelPair, MetricFamily, MetricType,
};

/// Writes metric families as text.
pub(super) fn write(families: &[MetricFamily]) -> String {
    let mut page = String::with_capacity(1 << 16);
    for family in families {
        let name = &family.name;
        let kind = match family.r#type() {
            MetricType::Counter => "counter",
            MetricType::Histogram | MetricType::GaugeHistogram => "histogram",
            MetricType::Summary => "summary",
            MetricType::Gauge => "gauge",
            MetricType::Untyped => "untyped",
        };
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for metric in &family.metric {
            let labels = &metric.label;
            if let Some(counter) = &metric.counter {
                line(&mut page, name, "", labels, None, counter.value);
            }
            if let Some(gauge) = &metric.gauge {
                line(&mut page, name, "", labels, None, gauge.value);
            }
            if let Some(histogram) = &metric.histogram {
                for bucket in &histogram.bucket {
                    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are f64")]
                    let count = bucket.cumulative_count as f64;
                    line(&mut page, name, "_bucket", labels, Some(bucket.upper_bound), count);
                }
                line(&mut page, name, "_sum", labels, None, histogram.sample_sum);
                #[expect(clippy::cast_precision_loss, reason = "Prometheus values are f64")]
                let count = histogram.sample_count as f64;
                line(&mut page, name, "_count", labels, None, count);
            }
        }
    }
    page
}

fn line(page: &mut String, name: &str, suffix: &str, labels: &[LabelPair], bound: Option<f64>, value: f64) {
    page.push_str(name);
    page.push_str(suffix);
    let mut separator = '{';
    let mut label = |page: &mut String, name: &str, value: &str| {
        let _ = write!(page, "{separator}{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => page.push_str("\\\\"),
                '"' => page.push_str("\\\""),
                '\n' => page.push_str("\\n"),
                other => page.push(other),
            }
        }
        page.push('"');
        separator = ',';
    };
    for pair in labels {
        label(page, &pair.name, &pair.value);
    }
    if let Some(bound) = bound {
        let bound = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
        label(page, "le", &bound);
    }
    if separator == ',' {
        page.push('}');
    }
    let _ = writeln!(page, " {value}");
}
