// What this page needs without a network, beside edgepack's own files.
self.edgepackShell = ["./", "app.mjs", "art.mjs", "beside.mjs", "hood.mjs", "view.mjs", "style.css"];
importScripts("./edgepack/service-worker.js");
