// An OpenID provider whose users are whoever they say they are: node provider.mjs FOLDER_WITH_NODE_MODULES
// Prints its issuer, then reads a line: {"redirect": "https://...", "back": "https://..."}.
import { createServer } from "node:http";
import { createInterface } from "node:readline";

const { Provider } = await import(`${process.argv[2]}/node_modules/oidc-provider/lib/index.js`);
let answer = (request, response) => response.writeHead(503).end();
const server = createServer((request, response) => answer(request, response));
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  console.log(issuer);
  createInterface({ input: process.stdin }).once("line", (line) => {
    const { redirect, back } = JSON.parse(line);
    answer = providerFor(issuer, redirect, back).callback();
    console.log("ready");
  });
});

function providerFor(issuer, redirect, back) {
  return new Provider(issuer, {
    clients: [{
      client_id: "hotspare", client_secret: "a secret of the test, long enough", response_types: ["code"],
      grant_types: ["authorization_code"], redirect_uris: [redirect], post_logout_redirect_uris: [back],
    }],
    claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
    cookies: { keys: ["of the test"] },
    pkce: { required: () => true },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: `subject of ${id}`, preferred_username: id, groups: id === "olga" ? ["operators"] : [] }),
    }),
  });
}
