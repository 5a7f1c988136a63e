// `/`: leads to the page of the game.

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

function answer(request) {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return new Response("use GET, HEAD\n", { status: 405, headers: { allow: "GET, HEAD" } });
  }
  return new Response(null, { status: 302, headers: { location: "/index.html", "cache-control": "no-store" } });
}
