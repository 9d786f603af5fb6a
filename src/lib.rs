//! Neighborhood Attention Transformers (NAT, arXiv 2204.07143; DiNAT, arXiv 2209.15001) on candle.

pub mod attention;
pub mod layers;
pub mod models;
pub mod weights;
pub mod zoo;
