window.env = { environment: "uat", project: "packet_label", api: "http://api.uat.package.test" };
