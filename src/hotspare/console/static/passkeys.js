// Passkeys: has the browser make one, or sign with one, and sends what it says with the form that asked for it.
"use strict";

// Either the options themselves, or the page that gives new ones: those hold for some minutes only.
async function optionsOf(form) {
  const given = form.dataset.options;
  if (!given.startsWith("/")) return JSON.parse(given);
  const answer = await fetch(given, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`The server answered ${answer.status}. Passkeys need its name, not an IP address.`);
  return (await answer.json()).options;
}

async function credentialFor(form) {
  const options = await optionsOf(form);
  if (form.dataset.passkey === "create") {
    return navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) });
  }
  return navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
}

async function sendWithPasskey(event) {
  event.preventDefault();
  const form = event.target;
  const problem = form.querySelector("[role=alert]");
  problem.hidden = true;
  try {
    form.elements.credential.value = JSON.stringify(await credentialFor(form));
  } catch (error) {
    problem.textContent = error.name === "NotAllowedError" ? "There was no passkey, or it was not permitted." : error.message;
    problem.hidden = false;
    return;
  }
  // Not requestSubmit: that would come here again.
  form.submit();
}

document.addEventListener("DOMContentLoaded", () => {
  if (typeof PublicKeyCredential === "undefined" || !PublicKeyCredential.parseRequestOptionsFromJSON) return;
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.hidden = false;
    form.addEventListener("submit", sendWithPasskey);
  }
});
