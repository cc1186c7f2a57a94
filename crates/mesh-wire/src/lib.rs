//! What goes over the wire, named as in tailcfg.
