window.env = { environment: "uat", project: "packet_outcustome_pc_ui", api: "http://api.uat.package.test" };
