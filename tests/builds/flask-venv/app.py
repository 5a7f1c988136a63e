import os, sys, threading, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import shout


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(shout.shout("hello").encode())

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 5000), Handler)
thread = threading.Thread(target=server.handle_request)
thread.start()
print(urllib.request.urlopen("http://127.0.0.1:5000/").read().decode(), os.getuid(), sys.prefix)
thread.join()
open("/app/instance/db", "w").close()
