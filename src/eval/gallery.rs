//! Nearest images as one HTML file: for each query its picture and those of the most similar images, in order.
//!
//! As a report, it holds all that it shows and fetches nothing; without scripts it lacks only the field to find a query by.

use super::html::{HtmlDocument, counted, escape, fill, grouped, named, own_picture};

const GALLERY: &str = include_str!("../../assets/report/gallery.html");
const SCRIPT: &str = include_str!("../../assets/report/gallery.js");

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gallery {
    /// What it is, plain text.
    pub title: String,
    /// What was searched and by what: facts as name and value, plain text.
    pub details: Vec<(String, String)>,
    /// In the order of the page.
    pub queries: Vec<GalleryQuery>,
}

/// An image, and the images that are most similar to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GalleryQuery {
    /// The image's name.
    pub name: String,
    /// A `data:image/...` address, see [`thumbnail`](super::thumbnail()). Other addresses are not shown: nothing is fetched.
    pub picture: Option<String>,
    /// The most similar image first.
    pub nearest: Vec<GalleryHit>,
}

/// An image of the index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GalleryHit {
    /// Its name.
    pub name: String,
    /// Cosine of the angle between the features, from -1 to 1.
    pub similarity: f32,
    /// As [`GalleryQuery::picture`].
    pub picture: Option<String>,
}

impl Gallery {
    /// The file.
    pub fn html(&self) -> String {
        let detail = |(what, value): &(String, String)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>\n", named(what), named(value))
        };
        let details: String = self.details.iter().map(detail).collect();
        let details =
            if details.is_empty() { details } else { format!("<dl class=\"facts\">\n{details}</dl>\n") };
        let queries: String = self.queries.iter().map(GalleryQuery::html).collect();
        let hits: usize = self.queries.iter().map(|query| query.nearest.len()).sum();
        let body = fill(
            GALLERY,
            &[
                ("title", &named(&self.title)),
                ("queries_count", &counted(self.queries.len() as u64, "query", "queries")),
                ("hits_count", &counted(hits as u64, "nearest image", "nearest images")),
                ("details", &details),
                ("find", if self.queries.len() > 1 { "" } else { " hidden" }),
                ("queries", &queries),
            ],
        );
        HtmlDocument { title: &self.title, body: &body, data: None, script: SCRIPT }.html()
    }
}

impl GalleryQuery {
    fn html(&self) -> String {
        let hit = |(place, hit): (usize, &GalleryHit)| {
            format!(
                "<li><figure>{}<figcaption><span class=\"rank\">{}</span><span class=\"number\">{:.4}</span>{}</figcaption>\
                 </figure></li>\n",
                picture(hit.picture.as_deref()),
                grouped(place as u64 + 1),
                hit.similarity,
                named(&hit.name)
            )
        };
        let hits: String = self.nearest.iter().enumerate().map(hit).collect();
        let hits = if hits.is_empty() {
            "<p class=\"note\">Nothing was found.</p>\n".to_owned()
        } else {
            format!("<ol class=\"hits\">\n{hits}</ol>\n")
        };
        format!(
            "<section class=\"query\">\n<figure>{}</figure>\n<div>\n<h2>{}</h2>\n{hits}</div>\n</section>\n",
            picture(self.picture.as_deref()),
            named(&self.name)
        )
    }
}

/// The picture, or a field of its size. Its name stands beside it.
fn picture(address: Option<&str>) -> String {
    match own_picture(address) {
        Some(address) => format!("<img alt=\"\" src=\"{}\">", escape(address)),
        None => "<span class=\"missing\">no picture</span>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash of the policy is of the bytes as a browser sees them, which knows no carriage return.
    #[test]
    fn the_script_can_stand_in_a_page() {
        assert!(!SCRIPT.contains('\r') && !SCRIPT.contains("</script") && !SCRIPT.contains("innerHTML"));
    }
}
