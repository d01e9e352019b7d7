//! Text to tokens to packed windows
