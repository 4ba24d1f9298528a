"use strict";

// The part of the sample front end that a browser keeps: its name holds the hash of its content.
const release = { project: "$project", tag: "$tag" };

function showRelease(documentToFill) {
  const place = documentToFill.getElementById("script");
  if (place) {
    place.textContent = release.project + " " + release.tag;
  }
}

if (typeof document !== "undefined") {
  showRelease(document);
}
