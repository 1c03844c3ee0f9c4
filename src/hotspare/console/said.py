"""Sentences with which a page may begin, by the word that stands for each in its address.

An address never carries the sentence itself: who makes somebody follow a link would put words into our mouth.
"""

SAID = {
    "welcome": "You are logged in.",
    "logged-out": "You are logged out.",
    "password-changed": "The password was changed. Log in with the new one.",
    "totp-on": "From now on, each login asks for a code of your authenticator app.",
    "totp-off": "Logins ask for no code any more.",
    "passkey-made": "The passkey was made. From now on it lets you in without a password or code.",
    "passkey-removed": "The passkey lets nobody in any more. Remove it from your device as well.",
    "token-revoked": "It is believed no longer.",
    "user-made": "The user was made.",
    "user-changed": "The user was changed.",
    "user-removed": "The user was removed, with all logins and tokens.",
    "second-person-on": "From now on, a second person has to agree to what destroys.",
    "second-person-off": "No second person is asked any more.",
    "waits": "Nothing was done yet: it waits for another admin, who has to agree under Settings.",
    "approved": "You agreed, and it was done.",
    "rejected": "You did not agree, and it is not done.",
    "begun": "It was begun. You may close this page: it goes on without it.",
    "stopping": "It stops at its next safe moment.",
    "again": "It was asked for again.",
    "policy-kept": "The policy was kept.",
    "policy-removed": "The policy was removed. Its restore points stay.",
    "policy-runs": "It was asked for; it begins as soon as limits allow.",
    "point-forgotten": "The restore point was forgotten.",
    "intact": "The record is as it was written, from the first entry to the last.",
}
