const fs = require("fs");

fs.mkdirSync("dist", { recursive: true });
const { version } = JSON.parse(fs.readFileSync("package.json", "utf8"));
fs.writeFileSync("dist/server.js", fs.readFileSync("src/server.js", "utf8").replace("VERSION", version));
