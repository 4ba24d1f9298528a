window.env = { environment: "test", project: "packet_label", api: "http://api.test.package.test" };
