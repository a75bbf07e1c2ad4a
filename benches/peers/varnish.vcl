# Varnish's own defaults are for a cache like this one: whatever has a lifetime is kept, cookies and tokens aside, of which there are none here.
vcl 4.1;

backend origin {
    .host = "127.0.0.1";
    .port = "@ORIGIN@";
}

sub vcl_recv {
    # One copy for both ports.
    set req.http.host = "origin";
}
