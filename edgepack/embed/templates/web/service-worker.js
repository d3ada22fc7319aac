// The app's own files for visits without a network: the network first, else what was last seen. Model and runtime
// are kept by index.mjs. The app's worker names its files in `self.edgepackShell` and imports this script. With
// `self.edgepackIsolate = true` it isolates the page (COOP, COEP) where the host does not: the model needs no
// isolation, and images of other hosts would stop loading, so it is off unless the app wants it for its own ends.
const SHELL = "shell-edgepack";
const SHELL_URLS = new Set(
  [...(self.edgepackShell ?? []), ...GLUE.map((name) => `edgepack/${name}`)].map((path) => new URL(path, self.location).href),
);

self.addEventListener("install", (event) => {
  self.skipWaiting();
  const fresh = [...SHELL_URLS].map((url) => new Request(url, { cache: "no-cache" }));
  event.waitUntil(caches.open(SHELL).then((cache) => cache.addAll(fresh)));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const url = event.request.url.split(/[?#]/)[0];
  if (event.request.method === "GET" && SHELL_URLS.has(url)) event.respondWith(newest(url));
});

async function newest(url) {
  const cache = await caches.open(SHELL);
  try {
    const response = await fetch(url, { cache: "no-cache" });
    if (response.ok) await cache.put(url, response.clone());
    return isolated(response);
  } catch {
    const last = await cache.match(url);
    return last ? isolated(last) : Response.error();
  }
}

function isolated(response) {
  if (!self.edgepackIsolate || response.redirected) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
