#!/usr/bin/env python3
"""Says what the recipients of mail have chosen: `service.py CHOICES.json [PORT]`."""

import http.server
import json
import sys

CHOICES, PORT = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8081


def answer(mail):
    """What to do with a message, from what Postfix says of it."""
    with open(CHOICES, encoding="utf-8") as file:
        chosen = json.load(file).get(mail.get("recipient", "").lower())
    if chosen is None:
        return None
    sender = mail.get("sender", "").lower()
    if sender in chosen.get("refuses", []):
        return {"action": "reject this recipient takes no mail from you"}
    if sender in chosen.get("knows", []):
        return {"score": -5}
    return {"user": chosen.get("settings", {})}


class Handler(http.server.BaseHTTPRequestHandler):
    # Connections are kept.
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        mail = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = answer(mail)
        body = b"" if found is None else json.dumps(found).encode()
        self.send_response(204 if found is None else 200)
        if found is not None:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Addresses of people belong in no log."""


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
